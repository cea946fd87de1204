"""The files of a tuning: its journal, and what the winner of each search is and answers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_utils.system.schema import read_json
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.sweep_folder import SweepFolder


@dataclass(frozen=True)
class Winner:
    """The best trial of a search.

    Attributes:
        search: its number; the last search is that over all rows.
        num_trials: that it was chosen from.
        trial: its number, from 0.
        value: the figure that it was chosen by.
        values: of the tuned flags, as in a recipe.
    """

    search: int
    num_trials: int
    trial: int
    value: float
    values: dict[str, Any]


class TuningFolder(SweepFolder):
    """A run folder with a journal and winners/ in place of a model."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.journal_file = self.path / "study.log"  # optuna's: all trials of all searches

    def table_file(self, search: int, part: str) -> Path:
        """What a search's winner answers for the rows that it was chosen by (inner) or that are held out (outer)."""
        return self.path / "winners" / f"{search}_{part}.csv"

    def write_winner(self, winner: Winner, inner: PredictionTable, outer: PredictionTable | None) -> None:
        """Write its answers, and then what it is, which makes the search a finished one."""
        for part, table in (("inner", inner), ("outer", outer)):
            if table is not None:
                table.write(self.table_file(winner.search, part))
        write_json(self._winner_file(winner.search), asdict(winner))

    def find_winner(self, search: int, num_trials: int) -> Winner | None:
        """The winner of so many trials; None where the search is still to be made, or a file was damaged."""
        with suppress(InputError, FileNotFoundError):
            winner = Winner(**read_json(self._winner_file(search), Winner))
            for part in ("inner", "outer"):
                if self.table_file(search, part).exists():
                    self.read_answers(search, part)
            return winner if winner.num_trials == num_trials else None
        return None

    def read_answers(self, search: int, part: str) -> PredictionTable:
        """What `table_file` holds."""
        return read_predictions_csv(self.table_file(search, part), any_task=True)

    def _winner_file(self, search: int) -> Path:
        return self.path / "winners" / f"{search}.json"
