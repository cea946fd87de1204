"""The rows of tables as a source of pairs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List

from data_utils.console.screen import printable
from data_utils.prepare.pair_files import CellReader, PairCells, TextCell
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import decode_text
from data_utils.sources.label_forms import BETWEEN
from data_utils.sources.quarantine import Fault, Reason
from data_utils.sources.records import Record, Row
from data_utils.sources.text import TEXT_SEPARATOR
from data_utils.tables.columns import check_kinds, choose_columns, tell_once
from data_utils.tables.pictures import TableCells, locate_pictures
from data_utils.tables.table import Table
from modeling.errors import InputError

_NO_TEXT = Fault(Reason.MISSING_TEXT, "the cell is empty")


class TableSource:
    """The tables of a data set, as `PairSource`; rows are numbered from 1 over all of them.

    Args:
        tables: by part: train, val, test; "" for rows that are of none.
        data: which columns, and where pictures lie.
        labelled: whether there has to be a column of labels.
    """

    def __init__(self, tables: Mapping[str, Table], data: DataArguments, *, labelled: bool = True) -> None:
        self.tables, self._data = tables, data
        self.passed_over: list[tuple[str, str]] = []  # no file is chosen among several
        first = next(iter(tables.values()))
        self.path = Path(first.folder)
        self.columns = choose_columns(first.name, first.dataset.column_names, data, labelled=labelled)
        if "test" in tables and data.test_data is data.test_split is None and not self._has_labels(tables["test"]):
            tell_once(f"{tables['test'].name} has no labels, and is left out; name it to --predict for its answers.")
            self.tables = tables = {part: table for part, table in tables.items() if part != "test"}
        self.parts: Collection[str] = tuple(tables) if len(tables) > 1 else ()
        self.name = " and ".join(table.name for table in tables.values())
        for table in tables.values():
            if lacking := [name for name in self.columns.all if name not in table.dataset.column_names]:
                raise InputError(
                    f"{table.name} has no column {printable(lacking[0])!r}, as {first.name} has; make them alike."
                )
            check_kinds(table, self.columns, data.task if labelled else None)
        sides = {"text": self.columns.text, "image": self.columns.image}
        self.sides: Sequence[str] = [side for side, columns in sides.items() if columns]
        image, cells = self.columns.image, {table.dataset._fingerprint: table.dataset for table in tables.values()}
        self.read_cell: CellReader | None = TableCells(cells, image) if image else None

    @staticmethod
    def is_valid(guid: str) -> bool:
        """Any name is one, as no file is called so."""
        return True

    def rows(self, labels: Sequence[str], *, for_prediction: bool = False) -> Iterator[Row]:
        """All rows, in their order."""
        parts = chain.from_iterable(repeat(part or None, len(table.dataset)) for part, table in self.tables.items())
        guids, tags = self._guids(), chain.from_iterable(map(self._tags, self.tables.values()))
        weights = chain.from_iterable(map(self._weights, self.tables.values()))
        for number, (guid, tag, part, weight) in enumerate(zip(guids, tags, parts, weights, strict=True), start=1):
            fault = "its name holds a NUL" if "\0" in guid else ""  # which no file of a run may
            if weight is not None and not 0 <= weight < math.inf:
                fault = f"in the column {self.columns.weight!r} belongs a finite number of 0 or more"
            yield Row(number, guid, tag, fault, part if self.parts else None, weight)

    def find(self, record: Record) -> PairCells:
        """Text and picture of a row."""
        row = record.row - 1
        return PairCells(record.guid, self._texts[row], self._pictures[row])

    def explain(self, record: Record, fault: Fault) -> Fault:
        """As it is: a cell has no neighbour that may have been meant."""
        return fault

    def tags_of(self, part: str) -> list[str]:
        """What the rows of a part say of their labels."""
        return list(self._tags(self.tables[part]))

    @property
    def declared_labels(self) -> list[str] | None:
        """The classes that the data set itself names, or its columns of 0 and 1."""
        if len(self.columns.label) > 1:
            return list(self.columns.label)
        feature = _class_label(next(iter(self.tables.values())).dataset, self.columns.label[0])
        return None if feature is None else list(feature.names)

    @cached_property
    def _pictures(self) -> list[Any]:
        return list(chain.from_iterable(map(self._locate, self.tables.values())))

    def _locate(self, table: Table) -> list[Any]:
        if self.columns.image is None:
            return [Fault(Reason.MISSING_IMAGE, f"{table.name} has no column of pictures")] * len(table.dataset)
        data, image = self._data, self.columns.image
        return locate_pictures(
            table, image, image_dir=data.image_dir, allow_urls=data.allow_urls, cache_dir=data.cache_path()
        )

    @cached_property
    def _texts(self) -> list[TextCell | Fault]:
        found: list[TextCell | Fault] = []
        for table in self.tables.values():
            if not self.columns.text:
                found += [Fault(Reason.MISSING_TEXT, f"{table.name} has no column of texts")] * len(table.dataset)
                continue
            texts = _plain_column(table.dataset, self.columns.text[0])
            if len(self.columns.text) > 1:
                pieces = zip(*(_plain_column(table.dataset, name) for name in self.columns.text), strict=True)
                texts = [TEXT_SEPARATOR.join(cells) if any(cells) else "" for cells in pieces]
            found += [TextCell(text) if text else _NO_TEXT for text in texts]
        return found

    def _guids(self) -> Iterator[str]:
        """The rows' own names, else their numbers; with the part's name before them where another part has one of them.

        Many data sets number the rows of each part anew.
        """
        taken: set[str] = set()
        for part, table in self.tables.items():
            names = [str(number) for number in range(1, len(table.dataset) + 1)]
            if self.columns.id is not None:  # among names a bare number could be another row's
                own = _plain_column(table.dataset, self.columns.id)
                names = [name or f"row-{number}" for name, number in zip(own, names, strict=True)]
            yield from names if taken.isdisjoint(names) else (f"{part}-{name}" for name in names)
            taken.update(names)

    def _has_labels(self, table: Table) -> bool:
        return set(self.columns.label) <= set(table.dataset.column_names) and any(self._tags(table))

    def _weights(self, table: Table) -> Iterator[float | None]:
        if self.columns.weight is None:
            return repeat(None, len(table.dataset))
        return map(_to_number, _plain_column(table.dataset, self.columns.weight))

    def _tags(self, table: Table) -> Iterator[str]:
        """What the rows say of their labels; "" for nothing."""
        names = self.columns.label
        if not names:
            yield from repeat("", len(table.dataset))
        elif len(names) == 1:
            cells, feature = _column(table.dataset, names[0]), _class_label(table.dataset, names[0])
            if pa.types.is_string(cells.type):
                yield from pc.utf8_trim_whitespace(pc.fill_null(cells, "")).to_pylist()
            else:
                yield from (_tag(cell, feature) for cell in cells.to_pylist())
        else:
            columns = [_plain_column(table.dataset, name) for name in names]
            for cells in zip(*columns, strict=True):
                yield _several(cells, names)


def _several(cells: Sequence[str], names: Sequence[str]) -> str:
    """The tag of a row of 0 and 1, one for each label."""
    if not all(cells):
        return ""
    return BETWEEN.join(name for name, cell in zip(names, cells, strict=True) if cell in ("1", "True")) or (BETWEEN)


def _to_number(cell: str) -> float:
    """Of a cell; nan for what is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _class_label(dataset: Dataset, name: str) -> ClassLabel | None:
    feature = dataset.features[name]
    feature = feature.feature if isinstance(feature, List) else feature
    return feature if isinstance(feature, ClassLabel) else None


def _tag(cell: Any, feature: ClassLabel | None) -> str:
    if isinstance(cell, list):
        return BETWEEN.join(_tag(each, feature) for each in cell) or BETWEEN
    if feature is not None and isinstance(cell, int):
        return feature.names[cell] if 0 <= cell < len(feature.names) else ""
    return _plain(cell).strip()


def _plain_column(dataset: Dataset, name: str) -> list[str]:
    """The cells as texts; "" for nothing."""
    cells = _column(dataset, name)
    if pa.types.is_string(cells.type):
        return pc.fill_null(cells, "").to_pylist()
    return [_plain(cell) for cell in cells.to_pylist()]


def _column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    cells = dataset.data.column(name)
    return cells if dataset._indices is None else cells.take(dataset._indices.column(0))


def _plain(cell: Any) -> str:
    """A cell as text: floats that stand for whole numbers, as pandas makes of them, as these; "" for nothing."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if isinstance(cell, bytes):
        return decode_text(cell)[0]
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
