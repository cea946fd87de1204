"""Encoders with parameters on which no answer depends: found, and trained by several ranks all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import TOKENIZER, save_family, small_config
from launching import launch, launcher
from tiny import LABELS, plan_of

from data_utils import sample
from training.build.build import build_model
from training.build.parameters import find_idle
from training.checkpoint.checkpoints import list_checkpoints
from training.flags.model import ModelArguments


@pytest.mark.parametrize(
    ("family", "idle"),
    [
        ("t5", {"shared.weight"}),
        ("esm", {"contact_head.regression.weight", "contact_head.regression.bias"}),
        ("bert", set()),
    ],
)
def test_parameters_that_nothing_reads_are_found(family: str, idle: set[str], tmp_path: Path) -> None:
    save_family(small_config(family), tmp_path)
    arguments = ModelArguments(model="vilbert", fusion="text_only", text_name=str(tmp_path))
    plan = plan_of(arguments)
    model = build_model(plan, arguments, tokenizer=TOKENIZER, labels=LABELS, text_cleaning="none")
    assert {name.removeprefix("text_tower.encoder.") for name in find_idle(model)} == idle


def test_two_ranks_train_an_encoder_with_idle_parameters(tmp_path: Path) -> None:
    assert sample.main(["--output_dir", str(tmp_path / "pairs"), "--num_pairs", "40"]) == 0
    save_family(small_config("t5"), tmp_path / "t5")
    words = ["--model", "vilbert", "--fusion", "text_only", "--text_name", str(tmp_path / "t5"), "--report_to", "none"]
    words += ["--data_dir", str(tmp_path / "pairs"), "--max_steps", "3", "--output_dir", str(tmp_path / "run")]
    launch(launcher("multi_gpu", 2), "train.py", *words, "--cache_dir", str(tmp_path / "cache"), "--image_size", "32")
    assert list_checkpoints(tmp_path / "run" / "checkpoints")
