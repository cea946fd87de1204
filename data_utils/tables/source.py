"""The rows of tables as a source of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List

from data_utils.console.screen import printable
from data_utils.prepare.pair_files import PairSource, Pictures, Text
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import decode_text
from data_utils.sources.label_forms import BETWEEN
from data_utils.sources.quarantine import Fault, Reason
from data_utils.sources.records import Rows
from data_utils.tables.columns import check_kinds, choose_columns, tell_once
from data_utils.tables.pictures import TableCells, locate_pictures
from data_utils.tables.table import Table
from modeling.errors import InputError
from modeling.text import TEXT_SEPARATOR

_NO_TEXT = Fault(Reason.MISSING_TEXT, "the cell is empty")


class TableSource(PairSource):
    """The tables of a data set, as `PairSource`; rows are numbered from 1 over all of them.

    Args:
        tables: by part: train, val, test; "" for rows that are of none.
        data: which columns, and where pictures lie.
        labelled: whether there has to be a column of labels.
    """

    def __init__(self, tables: Mapping[str, Table], data: DataArguments, *, labelled: bool = True) -> None:
        self.tables, self._data, self.passed_over = tables, data, []
        first = next(iter(tables.values()))
        self.path = Path(first.folder)
        self.columns = choose_columns(first.name, first.dataset.column_names, data, labelled=labelled)
        if "test" in tables and data.test_data is data.test_split is None and not self._has_labels(tables["test"]):
            tell_once(f"{tables['test'].name} has no labels, and is left out; name it to --predict for its answers.")
            self.tables = tables = {part: table for part, table in tables.items() if part != "test"}
        self.parts = tuple(tables) if len(tables) > 1 else ()
        self.name = " and ".join(table.name for table in tables.values())
        for table in tables.values():
            if lacking := [name for name in self.columns.all if name not in table.dataset.column_names]:
                raise InputError(
                    f"{table.name} has no column {printable(lacking[0])!r}, as {first.name} has; make them alike."
                )
            check_kinds(table, self.columns, data.task if labelled else None)
        sides = {"text": self.columns.text, "image": self.columns.image}
        self.sides = [side for side, columns in sides.items() if columns]
        image, cells = self.columns.image, {table.dataset._fingerprint: table.dataset for table in tables.values()}
        self.read_cell = TableCells(cells, image) if image else None

    def rows(self, labels: Sequence[str], *, for_prediction: bool = False) -> Rows:
        """All rows, in their order."""
        tables, guids = self.tables.values(), self._guids()
        parts = ([part if self.parts else None] * len(table.dataset) for part, table in self.tables.items())
        weights: Sequence[float | None] = [None] * len(guids)
        # No file of a run may hold a NUL.
        malformed = {place: "its name holds a NUL" for place, guid in enumerate(guids) if "\0" in guid}
        if (name := self.columns.weight) is not None:
            numbers = [_to_number(cell) for table in tables for cell in _plain_column(table.dataset, name)]
            fault = f"in the column {name!r} belongs a finite number of 0 or more"
            malformed |= {place: fault for place, number in enumerate(numbers) if not 0 <= number < math.inf}
            weights = numbers
        labels = list(chain.from_iterable(map(self._tags, tables)))
        return Rows(range(1, len(guids) + 1), guids, labels, list(chain.from_iterable(parts)), weights, malformed)

    def locate(self, rows: Rows) -> tuple[Sequence[Text], Pictures]:
        """Texts, and where pictures are."""
        texts, pictures = self._texts, self._pictures
        return [texts[number - 1] for number in rows.numbers], [pictures[number - 1] for number in rows.numbers]

    def tags_of(self, part: str) -> list[str]:
        """What the rows of a part say of their labels."""
        return self._tags(self.tables[part])

    @property
    def declared_labels(self) -> list[str] | None:
        """The classes that the data set itself names, or its columns of 0 and 1."""
        if len(self.columns.label) > 1:
            return list(self.columns.label)
        feature = _class_label(next(iter(self.tables.values())).dataset, self.columns.label[0])
        return None if feature is None else list(feature.names)

    @cached_property
    def _pictures(self) -> Pictures:
        found: list[Any] = []
        for table in self.tables.values():
            if self.columns.image is None:
                found += [Fault(Reason.MISSING_IMAGE, f"{table.name} has no column of pictures")] * len(table.dataset)
            else:
                found += locate_pictures(table, self.columns.image, self._data)
        return found

    @cached_property
    def _texts(self) -> list[Text]:
        found: list[Text] = []
        for table in self.tables.values():
            if not self.columns.text:
                found += [Fault(Reason.MISSING_TEXT, f"{table.name} has no column of texts")] * len(table.dataset)
                continue
            texts = _plain_column(table.dataset, self.columns.text[0])
            if len(self.columns.text) > 1:
                pieces = zip(*(_plain_column(table.dataset, name) for name in self.columns.text), strict=True)
                texts = [TEXT_SEPARATOR.join(cells) if any(cells) else "" for cells in pieces]
            found += [text or _NO_TEXT for text in texts]
        return found

    def _guids(self) -> list[str]:
        """The rows' own names, else their numbers; with the part's name before them where another part has one of them.

        Many data sets number the rows of each part anew.
        """
        found, earlier = list[str](), list[list[str]]()
        for part, table in self.tables.items():
            if self.columns.id is None:
                names = [str(number) for number in range(1, len(table.dataset) + 1)]
            else:  # among names a bare number could be another row's
                own = _plain_column(table.dataset, self.columns.id)
                names = own if all(own) else [name or f"row-{number}" for number, name in enumerate(own, start=1)]
            is_free = all(set(names).isdisjoint(others) for others in earlier)
            found += names if is_free else (f"{part}-{name}" for name in names)
            earlier.append(names)
        return found

    def _has_labels(self, table: Table) -> bool:
        return set(self.columns.label) <= set(table.dataset.column_names) and any(self._tags(table))

    def _tags(self, table: Table) -> list[str]:
        """What the rows say of their labels; "" for nothing."""
        names = self.columns.label
        if not names:
            return [""] * len(table.dataset)
        if len(names) > 1:
            columns = [_plain_column(table.dataset, name) for name in names]
            return [_several(cells, names) for cells in zip(*columns, strict=True)]
        cells, feature = _column(table.dataset, names[0]), _class_label(table.dataset, names[0])
        if not (pa.types.is_string(cells.type) or pa.types.is_integer(cells.type)):
            return [_tag(cell, feature) for cell in cells.to_pylist()]
        coded = cells.combine_chunks().dictionary_encode(null_encoding="encode")  # as many rows have the same
        tags = np.array([_tag(cell, feature) for cell in coded.dictionary.to_pylist()], dtype=object)
        return tags[coded.indices].tolist()


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
    if pa.types.is_string(cells.type):  # through NumPy in half of the time of `to_pylist`
        return pc.fill_null(cells, "").to_numpy(zero_copy_only=False).tolist()
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
