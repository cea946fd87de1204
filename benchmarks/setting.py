"""What all measurements share: data, model, number of repeats, and the way to a trainer as train.py builds it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_utils.sources.pictures import PictureSettings
from training.data.data import TrainingData
from training.engine.trainer import SentimentTrainer
from training.flags.parsing import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
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

    def launch(self, *words: str) -> str:
        """What Python prints when it runs `words` in a process of its own, with a new folder for its output.

        Raises:
            RuntimeError: it failed.
        """
        with tempfile.TemporaryDirectory(dir=self.work_dir) as output:
            command = [sys.executable, *words, "--output_dir", f"{output}/run"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        return done.stdout
