"""Rows out of a Parquet shard with the columns image (struct of bytes and path, or bytes), text, label and guid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from data_utils.shard_file import GUID_COLUMNS, Row, ShardRow, opened
from data_utils.shard_set import Shard

# Rows decoded at a time; their pictures' bytes are in memory together.
_ROWS_AT_A_TIME = 16


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; row groups before `start` are passed over unread."""
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        names = [name for name in file.schema_arrow.names if name in ("image", "text", "label", *GUID_COLUMNS)]
        to_row = _row_decoder(file.schema_arrow, shard)
        first = 0
        for group in range(file.num_row_groups):
            stop = first + file.metadata.row_group(group).num_rows
            if stop > start:
                reader = _GroupReader(file, group, names)
                for number in range(max(first, start), stop):
                    yield number, lambda n=number, r=reader, f=first: to_row(n, r.take(n - f))
            first = stop


class _GroupReader:
    """Rows of a row group, decoded a few at a time once the first of them is asked for."""

    def __init__(self, file: pq.ParquetFile, group: int, names: Sequence[str]) -> None:
        self._batches = file.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=list(names), use_threads=False)
        self._batch: pa.RecordBatch | None = None
        self._stop = 0

    def take(self, row: int) -> dict[str, Any]:
        while row >= self._stop:
            self._batch = next(self._batches)
            self._stop += len(self._batch)
        return self._batch.slice(row - self._stop + len(self._batch), 1).to_pylist()[0]


def _row_decoder(schema: pa.Schema, shard: Shard) -> Callable[[int, dict[str, Any]], ShardRow]:
    label = Features.from_arrow_schema(schema).get("label")
    names = label.names if isinstance(label, ClassLabel) else None

    def decode(number: int, row: dict[str, Any]) -> ShardRow:
        image, label = row["image"], row.get("label")
        if names is not None and isinstance(label, int):
            label = names[label] if label >= 0 else None
        guid = next((row[name] for name in GUID_COLUMNS if row.get(name) is not None), None)
        return ShardRow(
            guid=f"{shard.name}:{number}" if guid is None else str(guid),
            text=row["text"],
            image=image.get("bytes") if isinstance(image, dict) else image,
            label=label,
        )

    return decode


def find_columns(shard: Shard) -> dict[str, set[str]]:
    """The columns by their meaning."""
    with opened(shard) as file:
        schema = pq.read_schema(file)
    found = {name: {name} for name in schema.names}
    if "image" in found and not _holds_bytes(schema.field("image").type):
        found["other"] = {f"image as {schema.field('image').type}"}
        del found["image"]
    return found


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def iterate_texts(shard: Shard) -> Iterator[str]:
    """The texts alone; pictures are passed over."""
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=["text"], use_threads=False):
            yield from (text or "" for text in batch.column(0).to_pylist())
