"""Rows out of a Parquet shard with the columns image (struct of bytes and path, or bytes), text, label and guid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from data_utils.encodings import decode_text
from data_utils.shard_file import GUID_COLUMNS, Row, ShardError, ShardRow, opened
from data_utils.shard_set import Shard

# Rows decoded at a time; their pictures' bytes are in memory together.
_ROWS_AT_A_TIME = 16


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; row groups before `start` are passed over unread."""
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        names = [name for name in file.schema_arrow.names if name in ("image", "text", "label", *GUID_COLUMNS)]
        if lacking := {"image", "text"} - set(names):
            raise ShardError(f"The shard {shard.url} has no column {' or '.join(sorted(lacking))}, as others have.")
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
            text=_decode(row["text"]),
            image=image.get("bytes") if isinstance(image, dict) else image,
            label=label,
        )

    return decode


def _decode(text: str | bytes | None) -> str | None:
    return decode_text(text)[0] if isinstance(text, bytes) else text


def find_columns(shard: Shard) -> dict[str, set[str]]:
    """The columns by their meaning."""
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        schema, metadata = file.schema_arrow, file.metadata
    found = {name: {name} for name in schema.names}
    for name, is_usable in (("image", _holds_pictures), ("text", _holds_texts)):
        if name in found and not is_usable(schema.field(name).type):
            found[name + " otherwise"] = {f"{name} as {schema.field(name).type}"}
            del found[name]
    if "image" in found and _names_files_alone(metadata):
        found["image otherwise"] = {"image with paths but no bytes (datasets' embed_table_storage puts them in)"}
        del found["image"]
    return found


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return _holds_bytes(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    are_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return are_bytes or pa.types.is_null(kind)


def _holds_texts(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_texts(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_texts(kind.storage_type)
    are_strings = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return are_strings or _holds_bytes(kind)


def _names_files_alone(metadata: pq.FileMetaData) -> bool:
    """Whether no picture of a shard has its bytes in it, while some have a path, by the counts in the footer."""
    return _count_values(metadata, "image.bytes") == 0 and bool(_count_values(metadata, "image.path"))


def _count_values(metadata: pq.FileMetaData, path: str) -> int | None:
    """Values of a column that are there; None where nobody counted, or there is no such column."""
    count = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [column for column in map(group.column, range(group.num_columns)) if column.path_in_schema == path]
        if not columns or columns[0].statistics is None or not columns[0].statistics.has_null_count:
            return None
        count += group.num_rows - columns[0].statistics.null_count
    return count


def iterate_texts(shard: Shard) -> Iterator[str]:
    """The texts alone; pictures are passed over."""
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=["text"], use_threads=False):
            yield from (_decode(text) or "" for text in batch.column(0).to_pylist())
