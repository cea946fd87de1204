"""The files of a sweep: a trial's are whole or absent, so that a sweep can go on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from data_utils.system.schema import read_json
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial: its number in the recipe, what was swept in it, the flags by which train.py trains the same.

    metrics and last_metrics are after the best epoch (counted from 1) and the last; error says why there are none.
    """

    number: int
    values: dict[str, str]
    flags: list[str]
    seconds: float
    best_epoch: int | None = None
    metrics: dict[str, float] | None = None
    last_metrics: dict[str, float] | None = None
    parameters: dict[str, int] | None = None
    error: str | None = None


class TrialPredictions(NamedTuple):
    """A trial's answers for the same rows after its best epoch and after the last one.

    `held_out` are its answers after the best epoch for rows that chose nothing, of a trial that was given some.
    """

    best: PredictionTable
    last: PredictionTable
    held_out: PredictionTable | None = None


class SweepFolder(RunFolder):
    """A run folder with trials/ and predictions/ in place of a model."""

    def split_file_of(self, fold: int | None) -> Path:
        """The split of a trial, for train.py --split_file."""
        return self.split_file if fold is None else self.fold_split_file(fold)

    def read_records(self) -> list[TrialRecord]:
        """The finished trials, by number."""
        return [_read_record(path) for path in self._list_records()]

    def finished(self) -> set[int]:
        """Numbers of the finished trials."""
        return {int(path.stem) for path in self._list_records()}

    def drop_damaged(self) -> list[int]:
        """Delete the records of trials whose files were damaged or deleted: they count as unfinished. Their numbers."""
        damaged = []
        for path in self._list_records():
            with suppress(InputError):
                record = _read_record(path)
                if record.error is None:
                    self.read_predictions(record)
                continue
            path.unlink()
            damaged.append(int(path.stem))
        return damaged

    def write_trial(self, record: TrialRecord, predictions: TrialPredictions | None) -> None:
        """Write a trial's predictions, if it has any, and then its record, which makes it a finished one."""
        if predictions is not None:
            for path, table in zip(self._predictions_files(record.number), predictions[:2], strict=True):
                table.write(path)
        write_json(self.path / "trials" / f"{record.number:04d}.json", asdict(record))

    def read_predictions(self, record: TrialRecord) -> TrialPredictions:
        """The predictions of a finished trial."""
        return TrialPredictions(*map(read_predictions_csv, self._predictions_files(record.number)))

    def out_of_fold_file(self, trials: Sequence[TrialRecord]) -> Path:
        """Where the answers lie that the trials of all folds gave together."""
        return self.path / "predictions" / f"out_of_fold_{trials[0].number:04d}-{trials[-1].number:04d}.csv"

    def _list_records(self) -> list[Path]:
        return sorted((self.path / "trials").glob("[0-9]*.json"))

    def _predictions_files(self, number: int) -> tuple[Path, Path]:
        """After the best epoch and after the last one."""
        return self.path / "predictions" / f"{number:04d}.csv", self.path / "predictions" / f"{number:04d}_last.csv"


def _read_record(path: Path) -> TrialRecord:
    return TrialRecord(**read_json(path, TrialRecord))
