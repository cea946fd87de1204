"""Rows out of a Parquet shard with the columns image (struct of bytes and path, or bytes), text, label and guid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from data_utils.shards.shard_file import GUID_COLUMNS, Row, Shard, ShardError, ShardRow, opened
from data_utils.sources.encodings import decode_text

# Rows decoded at a time; their pictures' bytes are in memory together.
_ROWS_AT_A_TIME = 16


@contextmanager
def _parsed(shard: Shard) -> Iterator[pq.ParquetFile]:
    """The shard behind a check of its counts of rows; errors in here are `ShardError`.

    Of the footer only counts and the schema are asked for: statistics, and whatever else lies in a column's own entry,
    make Arrow end the whole process where a damaged footer has them wrong.
    """
    with opened(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        footer, announced = file.metadata, shard.rows
        rows = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        if not footer.num_rows == rows == (rows if announced is None else announced):
            raise ShardError(
                f"The shard {shard.url} has {rows} rows; its footer says {footer.num_rows}"
                f"{'' if announced is None else f', shards.json {announced}'}: copy it again, or write the shards anew."
            )
        yield file


def count_rows(shard: Shard) -> int:
    """Rows by the footer."""
    with _parsed(shard) as file:
        return file.metadata.num_rows


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; row groups before `start` are passed over unread."""
    with _parsed(shard) as file:
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
        image, text, label = row["image"], row["text"], row.get("label")
        if names is not None and isinstance(label, int):
            label = _class_name(label, names)
        guid = next((guid for name in GUID_COLUMNS if (guid := _to_plain(row.get(name))) is not None), None)
        return ShardRow(
            guid=f"{shard.name}:{number}" if guid is None else str(guid),
            text=decode_text(text, shard.text_encoding)[0] if isinstance(text, bytes) else text,
            image=image.get("bytes") if isinstance(image, dict) else image,
            label=_to_plain(label),
        )

    return decode


def _to_plain(value: Any) -> Any:
    """A label or guid: bytes as the text that they are; of floats, which pandas makes of integers, the integer."""
    if isinstance(value, bytes):
        return decode_text(value)[0]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _class_name(number: int, names: Sequence[str]) -> str | None:
    """None where the number says that there is no label; a number without a name is a label that nobody knows."""
    if number >= len(names):
        return f"class {number} of {len(names)}"
    return names[number] if number >= 0 else None


def find_columns(shard: Shard) -> dict[str, set[str]]:
    """The columns by their meaning."""
    with _parsed(shard) as file:
        schema = file.schema_arrow
        found = {name: {name} for name in schema.names}
        for name, is_usable in (("image", _holds_pictures), ("text", _holds_texts)):
            if name in found and not is_usable(schema.field(name).type):
                found[name + " otherwise"] = {f"{name} as {schema.field(name).type}"}
                del found[name]
        if "image" in found and pa.types.is_struct(schema.field("image").type) and _names_files_alone(file):
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


def _names_files_alone(file: pq.ParquetFile) -> bool:
    """Whether no picture of a shard has its bytes in it, while some have a path; the first that has them tells."""
    named = False
    for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=["image"], use_threads=False):
        pictures = [picture for picture in batch.column(0).to_pylist() if picture is not None]
        if any(picture["bytes"] is not None for picture in pictures):
            return False
        named = named or any(picture.get("path") is not None for picture in pictures)
    return named


def iterate_texts(shard: Shard) -> Iterator[str | bytes]:
    """The texts alone, not decoded; pictures are passed over."""
    with _parsed(shard) as file:
        for batch in file.iter_batches(columns=["text"], use_threads=False):
            yield from (text or "" for text in batch.column(0).to_pylist())
