"""Where pairs come from: what `load_pairs` asks of a list with a folder of files, and of a table alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from data_utils.prepare.pair_files import CellReader, PairCells, PairFiles
from data_utils.sources.quarantine import Fault
from data_utils.sources.records import Record, Row


class PairSource(Protocol):
    """Rows, and the text and the picture of each.

    Attributes:
        name: for messages.
        path: the folder of the files, for messages.
        read_cell: reads the pictures that stand in a table; can be sent to another process.
        sides: of "text" and "image" those that the data have at all.
        parts: those (of train, val, test) that the data declare; none, or several.
        passed_over: names of files that can't be used, with that of the one taken in their place.
    """

    name: str
    path: Path
    sides: Sequence[str]
    parts: Collection[str]
    passed_over: list[tuple[str, str]]
    read_cell: CellReader | None

    def rows(self, labels: Sequence[str], *, for_prediction: bool = False) -> Iterable[Row]:
        """The rows; `InputError` where they can't be read."""
        ...

    def is_valid(self, guid: str) -> bool:
        """Whether a guid can be used."""
        ...

    def find(self, record: Record) -> PairFiles | PairCells:
        """Where text and picture of a record are."""
        ...

    def explain(self, record: Record, fault: Fault) -> Fault:
        """The fault of one of them, with a hint where something else may have been meant."""
        ...
