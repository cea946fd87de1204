"""What the tests on a GPU start from: small pairs, and the skipping of all where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import launch, launcher, train_flags

from data_utils.sample import main as draw_sample


@pytest.fixture(scope="session", autouse=True)
def gpu_or_rehearsal() -> None:
    """Skip all without a GPU; in a rehearsal what can run on the CPU does, so that the tests themselves are tried."""
    if not torch.cuda.is_available() and not os.environ.get("REHEARSE"):
        pytest.skip("no CUDA device; `make test-gpu REHEARSE=1` tries on the CPU what can run there")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory, gpu_or_rehearsal: None) -> Path:
    """A data folder of 80 pairs and 10 without a label; its caches lie beside it."""
    folder = tmp_path_factory.mktemp("gpu") / "pairs"
    draw_sample(["--output_dir", str(folder), "--num_pairs", "80", "--num_test", "10"])
    return folder


@pytest.fixture(scope="session")
def flags(pairs: Path) -> Callable[..., list[str]]:
    """Factory of train.py's words for a run folder: a tiny CLIP in float32, 8 rows an update; later flags win."""

    def make(run: Path, *more: str, **options: dict) -> list[str]:
        words = ["--tf32", "False", "--per_device_train_batch_size", "8", "--load_best_model_at_end", "False"]
        return train_flags(pairs, run, *words, "--disable_tqdm", "true", *more, **options)

    return make


@pytest.fixture(scope="session")
def train_here(flags: Callable[..., list[str]]) -> Callable[..., Path]:
    """Run train.py's main in this process, on the GPU where there is one; returns the run folder."""
    import train

    def run(folder: Path, *more: str, **options: dict) -> Path:
        train.main(flags(folder, *more, **options)[1:])
        return folder

    return run


@pytest.fixture(scope="session")
def train_as(flags: Callable[..., list[str]]) -> Callable[..., Path]:
    """Launch train.py with a file of accelerate_configs/, as a user does; returns the run folder."""

    def run(config: str, ranks: int | None, folder: Path, *more: str, **options: dict) -> Path:
        # On a GPU that is lent for minutes one that hangs mustn't take them all.
        timeout = 90 if torch.cuda.is_available() else 240
        launch(launcher(config, ranks), *flags(folder, *more, **options), timeout=timeout)
        return folder

    return run
