"""The files of a sweep, and where they lie: a trial's files are whole or absent, so that a sweep can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_utils.system.schema import read_json
from evaluation.scores.sweep_summary import (
    Predictions,
    TrialRecord,
    describe_choices,
    group_by_seed,
    join_folds,
    summarise_sweep,
    tabulate_sweep,
    write_summary_csv,
    write_summary_md,
    write_trials_csv,
)
from modeling.errors import InputError
from run_files.predictions_csv import read_predictions_csv
from run_files.report import format_table, write_json, write_predictions_csv
from run_files.run_folder import RunFolder


class SweepFolder(RunFolder):
    """A run folder with trials/ and predictions/ in place of a model.

    Args:
        path: of the folder.
        label_names: the C classes' names.
    """

    def __init__(self, path: str | Path, label_names: Sequence[str]) -> None:
        super().__init__(path)
        self.label_names = tuple(label_names)

    def split_file_of(self, fold: int | None) -> Path:
        """The split of a trial, for train.py --split_file."""
        return self.split_file if fold is None else self.path / "splits" / f"fold-{fold}.json"

    def read_records(self) -> list[TrialRecord]:
        """The finished trials, by number."""
        return [_read_record(path) for path in self._list_records()]

    def finished(self) -> set[int]:
        """Numbers of the finished trials."""
        return {int(path.stem) for path in self._list_records()}

    def drop_damaged(self) -> list[int]:
        """Delete the records of trials whose files were damaged or deleted, which makes them unfinished.

        Returns:
            Their numbers.
        """
        damaged = [path for path in self._list_records() if not self._is_whole(path)]
        for path in damaged:
            path.unlink()
        return [int(path.stem) for path in damaged]

    def write_trial(self, record: TrialRecord, predictions: Predictions | None) -> None:
        """Write a trial's predictions, if it has any, and then its record, which makes it a finished one."""
        if predictions is not None:
            for suffix, probabilities in (("", predictions.best), ("_last", predictions.last)):
                path = self._predictions_file(record.number, suffix)
                write_predictions_csv(path, predictions.guids, predictions.labels, probabilities, self.label_names)
        write_json(self.path / "trials" / f"{record.number:04d}.json", asdict(record))

    def read_predictions(self, record: TrialRecord) -> Predictions:
        """The predictions of a finished trial."""
        best, last = (read_predictions_csv(self._predictions_file(record.number, suffix)) for suffix in ("", "_last"))
        return Predictions(best.guids, best.labels, best.probabilities, last.probabilities)

    def write_summary(self, metric: str) -> str:
        """Write trials.csv, summary.csv, summary.md and, with folds, the joined predictions; returns the table.

        Args:
            metric: by which the best epoch was chosen.
        """
        records = self.read_records()
        write_trials_csv(self.path / "trials.csv", records)
        if any("fold" in record.values for record in records):
            self._write_out_of_fold(records)
        configurations = summarise_sweep(records, self.read_predictions, self.label_names)
        write_summary_csv(self.path / "summary.csv", configurations)
        table = tabulate_sweep(configurations)
        num_rows = max(each.num_rows for each in configurations)
        remarks = describe_choices(metric, num_rows, len(configurations))
        write_summary_md(self.path / "summary.md", table, title=self.path.name, remarks=remarks)
        return f"{format_table(table)}\n\n{remarks}"

    def _write_out_of_fold(self, records: Sequence[TrialRecord]) -> None:
        for seeds in group_by_seed(records).values():
            for trials in seeds.values():
                if all(trial.error is None for trial in trials):
                    joined = join_folds([self.read_predictions(trial) for trial in trials])
                    names = [trials[0].number, trials[-1].number]
                    path = self.path / "predictions" / f"out_of_fold_{names[0]:04d}-{names[1]:04d}.csv"
                    write_predictions_csv(path, joined.guids, joined.labels, joined.best, self.label_names)

    def _is_whole(self, path: Path) -> bool:
        """Whether a record and the predictions that go with it can be read."""
        try:
            record = _read_record(path)
            if record.error is None:
                self.read_predictions(record)
        except InputError:
            return False
        return True

    def _list_records(self) -> list[Path]:
        return sorted((self.path / "trials").glob("[0-9]*.json"))

    def _predictions_file(self, number: int, suffix: str) -> Path:
        return self.path / "predictions" / f"{number:04d}{suffix}.csv"


def _read_record(path: Path) -> TrialRecord:
    return TrialRecord(**read_json(path, TrialRecord))
