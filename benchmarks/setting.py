"""What all measurements share: data, model, number of repeats, and the way to a trainer as train.py builds it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_utils.sources.arguments import DataArguments
from data_utils.sources.pictures import PictureSettings
from training.data.data import TrainingData
from training.engine.trainer import SentimentTrainer
from training.flags.parsing import parse_arguments

# The squashed square of CLIP's own processor.
PICTURE = PictureSettings(image_size=224, shortest_edge=224, resize_mode="squash", resample=3)


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        data_dir: train.txt and data/.
        clip_name: folder of the CLIP that is trained.
        work_dir: caches and runs of the measurements.
        repeats: of each side.
        quick: tiny numbers of steps, for tests.
    """

    data_dir: Path
    clip_name: Path
    work_dir: Path
    repeats: int
    quick: bool

    @property
    def cache_dir(self) -> Path:
        """The cache that is warm after the first measurement."""
        return self.work_dir / "cache"

    def flags(self, *flags: str) -> list[str]:
        """Flags of train.py: the shipped defaults, on this setting's data, and its model unless they name another."""
        model = () if "--model" in flags else ("--model", "clip", "--clip_name", str(self.clip_name))
        return [
            *(*model, "--data_dir", str(self.data_dir)),
            *("--cache_dir", str(self.cache_dir), "--disable_tqdm", "true", *flags),
        ]

    def steps(self, number: int) -> int:
        """So many steps, or the few of --quick."""
        return min(number, 2) if self.quick else number

    @contextmanager
    def assemble(self, *flags: str) -> Iterator[tuple[SentimentTrainer, TrainingData]]:
        """A trainer and its data, as train.py has them before its first step; its files are removed in the end."""
        from training.experiments.training import assemble

        with tempfile.TemporaryDirectory(dir=self.work_dir) as output:
            trainer, prepared, _ = assemble(
                *parse_arguments(self.flags("--output_dir", output, "--save_strategy", "no", *flags))
            )
            yield trainer, prepared

    @contextmanager
    def cold_arguments(self) -> Iterator[DataArguments]:
        """Data arguments with a cache folder of their own, empty at first and removed in the end."""
        folder = tempfile.mkdtemp(dir=self.work_dir, prefix="cold-")
        try:
            yield DataArguments(data_dir=str(self.data_dir), cache_dir=folder)
        finally:
            shutil.rmtree(folder)
