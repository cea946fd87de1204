"""A prepared data set as torch reads it: the rows of a batch at once, column by column, without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

# By name: an array of numbers, or a sequence of bytes, of lists of numbers, of arrays.
Columns = dict[str, Any]


class BatchReader(TorchDataset):
    """Hands the collator whole batches: numpy views of the memory-mapped Arrow buffers, instead of a dict per row.

    Args:
        dataset: N rows, after any `select`. Columns of numbers, of bytes and of lists of numbers are read; columns of
            strings are for people and stay where they are.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row as a dict, for samplers that look at rows."""
        return {name: values[0] for name, values in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> Columns:
        """The columns of some rows: an array (B,) of numbers, or a list of B arrays (None where there is nothing).

        The arrays in the lists are views of the file: whoever keeps them, or writes to them, copies them.
        """
        stored = np.asarray(rows) if self._indices is None else self._indices[rows]
        return {name: column[stored] for name, column in self._columns.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrow buffers would be copied into a process that is spawned; the data set is mapped there anew.
        return type(self), (self.dataset,)

    @property
    def lengths(self) -> np.ndarray | None:
        """Tokens per row, int64 (N,); None without a column of tokens."""
        column = self._columns.get("input_ids")
        if not isinstance(column, _Ragged):
            return None
        return column.lengths if self._indices is None else column.lengths[self._indices]

    @cached_property
    def _indices(self) -> np.ndarray | None:
        indices = self.dataset._indices
        return None if indices is None else indices.column(0).to_numpy().astype(np.int64)

    @cached_property
    def _columns(self) -> dict[str, np.ndarray | _Ragged]:
        table = self.dataset.data
        columns = ((field, table.column(field.name)) for field in table.schema if not pa.types.is_string(field.type))
        return {
            field.name: _Ragged(column)
            if pa.types.is_binary(field.type) or pa.types.is_list(field.type)
            else column.to_numpy()
            for field, column in columns
        }


class _Ragged:
    """A column of bytes or of lists of numbers, of any length per row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, chunks)])
        self._parts = [_open_chunk(chunk) for chunk in chunks]

    @property
    def lengths(self) -> np.ndarray:
        """Values per stored row, 0 for none."""
        return np.concatenate([np.diff(offsets) for _, offsets, _ in self._parts])

    def __getitem__(self, rows: np.ndarray) -> list[np.ndarray | None]:
        numbers = self._starts.searchsorted(rows, side="right") - 1
        found = []
        for number, row in zip(numbers.tolist(), (rows - self._starts[numbers]).tolist(), strict=True):
            values, offsets, present = self._parts[number]
            found.append(values[offsets[row] : offsets[row + 1]] if present is None or present[row] else None)
        return found


def _open_chunk(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Values, offsets (R + 1) and presence (R) of the R rows of a chunk; presence is None where no row is null."""
    present = chunk.is_valid().to_numpy(zero_copy_only=False) if chunk.null_count else None
    if pa.types.is_list(chunk.type):
        return chunk.values.to_numpy(), chunk.offsets.to_numpy(), present
    _, offsets, values = chunk.buffers()
    offsets = np.frombuffer(offsets, dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return np.frombuffer(values or b"", dtype=np.uint8), offsets, present
