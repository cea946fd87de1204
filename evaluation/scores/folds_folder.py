"""The files of a cross-validated run, and what its held-out predictions say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_utils.splits.split_file import load_split
from evaluation.scores.calibration import apply_temperature, draw_reliability, fit_out_of_fold
from evaluation.scores.metrics import classification_metrics
from evaluation.scores.scoring import score_predictions
from evaluation.scores.statistics import bootstrap_intervals
from evaluation.scores.sweep_summary import FIGURES, spread_figures
from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.report import format_interval, write_json, write_predictions_csv
from run_files.run_folder import RunFolder

SECTION = "folds"
MAX_MEMBERS = 100_000
OUT_OF_FOLD_FILE = "predictions_oof.csv"


@dataclass(frozen=True)
class Member:
    """One training of a cross-validated run: an ordinary run folder, whose test part is one fold."""

    seed: int
    fold: int
    path: Path


class FoldsFolder(RunFolder):
    """A run folder with splits/ and members/ in place of a split and a model.

    Args:
        path: of the folder.
        seeds: of the trainings of each fold.
        num_folds: K.
    """

    def __init__(self, path: str | Path, seeds: Sequence[int], num_folds: int) -> None:
        super().__init__(path)
        self.seeds = tuple(seeds)
        self.num_folds = num_folds

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

    def split_file_of(self, fold: int) -> Path:
        """The split of a fold: its rows are the test part."""
        return self.path / "splits" / f"fold-{fold}.json"

    def members(self) -> Iterator[Member]:
        """All trainings, fold by fold within each seed."""
        for seed in self.seeds:
            for fold in range(self.num_folds):
                yield Member(seed, fold, self.path / "members" / f"seed-{seed}-fold-{fold}")

    @property
    def predictions_oof_file(self) -> Path:
        """Held-out predictions of all rows: the mean of the probabilities over seeds."""
        return self.path / OUT_OF_FOLD_FILE

    def predictions_oof_file_of(self, seed: int) -> Path:
        """Held-out predictions of all rows by the models of one seed."""
        return self.path / f"predictions_oof_seed{seed}.csv"

    def fold_of_guids(self) -> dict[str, int]:
        """The fold that holds out each row."""
        return {guid: fold for fold in range(self.num_folds) for guid in load_split(self.split_file_of(fold)).test}

    def check_complete(self) -> None:
        """`InputError` unless every training has finished, and what they said was put together."""
        missing = [member.path for member in self.members() if not RunFolder(member.path).metrics_file.is_file()]
        if missing or not self.metrics_file.is_file():
            what = f"{len(missing)} unfinished trainings, first {missing[0]}" if missing else "no metrics.json yet"
            raise InputError(
                f"The run {str(self.path)!r} has {what}; go on with the command that started it and "
                "--resume_from_checkpoint latest."
            )

    def calibrate(self) -> dict[int, float]:
        """Write calibration.json and reliability.png; returns the temperature of each fold's models.

        It is the one that fits what the models of the other folds said of the rows that they held out.
        """
        tables = [self._join(seed, {}) for seed in self.seeds]
        fold_of = self.fold_of_guids()
        folds = np.array([fold_of[guid] for table in tables for guid in table.guids])
        probabilities, labels = (
            np.concatenate([getattr(table, name) for table in tables]) for name in ("probabilities", "labels")
        )
        rows = np.tile(np.arange(len(tables[0].guids)), len(tables))
        found = fit_out_of_fold(probabilities, labels, folds, rows=rows)
        write_json(self.path / "calibration.json", found)
        draw_reliability(self.path / "reliability.png", found["before"], found["after"])
        return {int(fold): temperature for fold, temperature in found["fold_temperatures"].items()}

    def write_out_of_fold(self, temperatures: Mapping[int, float]) -> dict[str, Any]:
        """Join the members' held-out predictions, write them, and score them.

        Args:
            temperatures: by which the models of each fold are scaled (`calibrate`).

        Returns:
            mean and std over seeds of the figures, intervals of the mean accuracy and macro F1, the figures of each
            seed, and under averaged those of the mean probabilities.
        """
        tables = {seed: self._join(seed, temperatures) for seed in self.seeds}
        first = tables[self.seeds[0]]
        names = list(first.label_names)
        for seed, table in tables.items():
            path = self.predictions_oof_file_of(seed)
            write_predictions_csv(path, table.guids, table.labels, table.probabilities, names)
        mean = np.mean([table.probabilities for table in tables.values()], axis=0)
        write_predictions_csv(self.predictions_oof_file, first.guids, first.labels, mean, names)
        figures = {
            seed: classification_metrics(table.probabilities, table.labels, names) for seed, table in tables.items()
        }
        answers = np.stack([table.answers for table in tables.values()])  # (S, N)
        spread = spread_figures(list(figures.values()))
        return {
            "num_rows": len(first.guids),
            "mean": {name: mean for name, (mean, _) in spread.items()},
            "std": {name: std for name, (_, std) in spread.items()},
            "intervals": bootstrap_intervals(answers, first.labels, len(names)),
            "seeds": {str(seed): {name: each[name] for name in FIGURES} for seed, each in figures.items()},
            "averaged": score_predictions(mean, first.labels, names),
        }

    def _join(self, seed: int, temperatures: Mapping[int, float]) -> PredictionTable:
        """The held-out rows of one seed's folds, sorted by guid."""
        parts = []
        for member in self.members():
            if member.seed == seed:
                table = read_predictions_csv(RunFolder(member.path).predictions_files["test"])
                scaled = apply_temperature(table.probabilities, temperatures.get(member.fold, 1.0))
                parts.append(replace(table, probabilities=scaled))
        joined = PredictionTable(
            tuple(guid for part in parts for guid in part.guids),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            parts[0].label_names,
        )
        return joined.select(sorted(range(len(joined.guids)), key=joined.guids.__getitem__))


def format_out_of_fold(scores: dict[str, Any]) -> str:
    """The headline of `FoldsFolder.write_out_of_fold` as plain text."""
    lines = [f"out of fold, {scores['num_rows']} rows, {len(scores['seeds'])} seeds"]
    for name, title in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        std = scores["std"][name]
        spread = "" if std is None else f" ± {std:.3f} over seeds"
        averaged = f"; probabilities averaged over seeds {scores['averaged'][name]:.3f}" if spread else ""
        lines.append(f"{title} {format_interval(scores['mean'][name], scores['intervals'][name])}{spread}{averaged}")
    return "\n".join(lines)
