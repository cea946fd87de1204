"""Rows out of a Parquet shard with the columns image (struct of bytes and path, or bytes), text, label and guid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from data_utils.shards.shard_file import GUID_COLUMNS, Row, Shard, ShardError, ShardRow, find_guid, open_shard
from data_utils.sources.encodings import decode_text

# Rows decoded at a time; their pictures' bytes are in memory together.
_ROWS_AT_A_TIME = 16
_BYTES = frozenset((pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()))
_READABLE = {"image": _BYTES, "text": _BYTES | {pa.string(), pa.large_string(), pa.string_view()}}


@contextmanager
def _open(shard: Shard) -> Iterator[pq.ParquetFile]:
    """The shard behind a check of its counts of rows; errors in here are `ShardError`.

    Of the footer only counts and the schema are asked for: statistics, and whatever else lies in a column's own entry,
    make Arrow end the whole process where a damaged footer has them wrong.
    """
    with open_shard(shard) as source, pq.ParquetFile(source, pre_buffer=False) as file:
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
    with _open(shard) as file:
        return file.metadata.num_rows


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; row groups before `start` are passed over unread."""
    with _open(shard) as file:
        names = [name for name in file.schema_arrow.names if name in ("image", "text", "label", *GUID_COLUMNS)]
        if lacking := {"image", "text"} - set(names):
            raise ShardError(f"The shard {shard.url} has no column {' or '.join(sorted(lacking))}, as others have.")
        label = Features.from_arrow_schema(file.schema_arrow).get("label")
        classes = label.names if isinstance(label, ClassLabel) else None
        first = 0
        for group in range(file.num_row_groups):
            stop = first + file.metadata.row_group(group).num_rows
            if stop > start:
                rows = enumerate(_iterate_group(file, group, names), start=first)
                yield from (
                    (number, partial(_read_row, rows, number, shard, classes))
                    for number in range(max(first, start), stop)
                )
            first = stop


def _iterate_group(file: pq.ParquetFile, group: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=list(names), use_threads=False):
        yield from batch.to_pylist()


def _read_row(
    rows: Iterator[tuple[int, dict[str, Any]]], number: int, shard: Shard, classes: Sequence[str] | None
) -> ShardRow:
    row = next(row for place, row in rows if place == number)
    image, text, label = row.pop("image"), row.pop("text"), row.get("label")
    if classes is not None and isinstance(label, int):
        label = _class_name(label, classes)
    guid = find_guid({name: _to_plain(value) for name, value in row.items()})
    return ShardRow(
        guid=f"{shard.name}:{number}" if guid is None else str(guid),
        text=decode_text(text, shard.text_encoding)[0] if isinstance(text, bytes) else text,
        image=image.get("bytes") if isinstance(image, dict) else image,
        label=_to_plain(label),
    )


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


def find_columns(shard: Shard) -> tuple[set[str], set[str]]:
    """The columns that can be read, and what there is, in words."""
    with _open(shard) as file:
        kinds = {field.name: field.type for field in file.schema_arrow}
        wrong = {
            name: f"{name} as {kinds[name]}" for name in kinds.keys() & _READABLE if not _is_readable(name, kinds[name])
        }
        if "image" in kinds.keys() - wrong and pa.types.is_struct(kinds["image"]) and _names_files_alone(file):
            wrong["image"] = "image with paths but no bytes (datasets' embed_table_storage puts them in)"
    return kinds.keys() - wrong, {wrong.get(name, name) for name in kinds}


def _is_readable(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this type may hold pictures' bytes, or texts."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_readable(name, kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_readable(name, kind.value_type)
    if name == "image" and pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and kind.field("bytes").type in _BYTES
    return kind in _READABLE[name]


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
    with _open(shard) as file:
        for batch in file.iter_batches(columns=["text"], use_threads=False):
            yield from (text or "" for text in batch.column(0).to_pylist())
