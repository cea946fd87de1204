"""The files of a cross-validated run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_utils.splits.split_file import load_split
from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder
from run_files.schema import MemberMetricsFile

SECTION = "folds"
MAX_MEMBERS = 100_000
OUT_OF_FOLD_FILE = "predictions_oof.csv"


class Member(RunFolder):
    """One training of a cross-validated run: an ordinary run folder, whose test part is one fold."""

    def __init__(self, path: Path, seed: int, fold: int) -> None:
        super().__init__(path)
        self.seed, self.fold = seed, fold

    @property
    def is_finished(self) -> bool:
        """Whether its figures are there, which are written last."""
        return self.metrics_file.is_file()

    def load_metrics(self, kind: Any = MemberMetricsFile, *, remedy: str | None = None) -> dict[str, Any]:
        """Its metrics.json; `InputError` where that is damaged."""
        again = f"delete {self.path}, and train it again by --resume_from_checkpoint latest"
        return super().load_metrics(kind, remedy=remedy or again)

    def read_held_out(self) -> PredictionTable:
        """What it says of its fold."""
        return read_predictions_csv(self.predictions_files["test"], any_task=True)


class FoldsFolder(RunFolder):
    """A run folder with splits/ and members/ in place of a split and a model, of K folds and some seeds."""

    def __init__(self, path: str | Path, seeds: Sequence[int], num_folds: int) -> None:
        super().__init__(path)
        self.seeds = tuple(seeds)
        self.num_folds = num_folds
        self.predictions_oof_file = self.path / OUT_OF_FOLD_FILE  # of all rows: the mean of the seeds' probabilities

    @classmethod
    def find(cls, path: str | Path) -> FoldsFolder | None:
        """The cross-validated run at `path`; None if it isn't one."""
        run = RunFolder(path)
        section = run.load_arguments().get(SECTION) if run.is_run() else None
        if section is None:
            return None
        if section["num_folds"] * len(section["seeds"]) > MAX_MEMBERS:
            raise InputError(f"{run.config_file} has over {MAX_MEMBERS:,} trainings under folds; copy it again.")
        return cls(path, section["seeds"], section["num_folds"])

    def members(self, seed: int | None = None) -> list[Member]:
        """All trainings, or those of one seed, fold by fold within each seed."""
        return [
            Member(self.path / "members" / f"seed-{each}-fold-{fold}", each, fold)
            for each in (self.seeds if seed is None else (seed,))
            for fold in range(self.num_folds)
        ]

    def predictions_oof_file_of(self, seed: int) -> Path:
        """Held-out predictions of all rows by the models of one seed."""
        return self.path / f"predictions_oof_seed{seed}.csv"

    def fold_of_guids(self) -> dict[str, int]:
        """The fold that holds out each row."""
        return {guid: fold for fold in range(self.num_folds) for guid in load_split(self.fold_split_file(fold)).test}

    def check_complete(self) -> None:
        """`InputError` unless every training has finished, and what they said was put together."""
        missing = [member.path for member in self.members() if not member.is_finished]
        if missing or not self.metrics_file.is_file():
            what = f"{len(missing)} unfinished trainings, first {missing[0]}" if missing else "no metrics.json yet"
            raise InputError(
                f"The run {str(self.path)!r} has {what}; go on with the command that started it and "
                "--resume_from_checkpoint latest."
            )


def find_seed_files(folder: Path) -> dict[str, Path]:
    """The held-out predictions of each seed that lie in a folder, by seed, the smallest first."""
    matches = ((re.fullmatch(r"predictions_oof_seed(-?\d+)\.csv", path.name), path) for path in folder.iterdir())
    found = {match[1]: path for match, path in matches if match}
    return {seed: found[seed] for seed in sorted(found, key=int)}
