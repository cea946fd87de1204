"""One shard onto the disk, whole or not at all; the same rows give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value
from fsspec.implementations.local import LocalFileSystem

from data_utils.prepare.loading import read_file
from data_utils.prepare.pair_files import CellReader, FileState, Picture, PictureCell
from data_utils.shards.manifest import ShardEntry
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import Shard, ShardError
from data_utils.system.files import temporary_path
from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError
from modeling.pictures import PICTURE_SUFFIXES

FEATURES = Features({"guid": Value("string"), "text": Value("string"), "label": Value("string"), "image": Image()})
# Rows that a reader has to take in together, with their pictures.
_ROWS_PER_GROUP = 64


class PlannedRow(NamedTuple):
    """A row to be written: `text`, `label` and `image_key` are None where there is none.

    Attributes:
        number: in its part; the key in a tar, where names must be plain and differ.
        picture: where its bytes are.
        image_key: SHA-256 of them as they were found.
    """

    number: int
    guid: str
    text: str | None
    label: str | None
    picture: Picture
    image_key: str | None


class PlannedShard(NamedTuple):
    """A shard to be written: its path and format, what reads pictures that stand in a table, and its rows."""

    path: Path
    kind: str
    read_cell: CellReader | None
    rows: Sequence[PlannedRow]


Rows = Iterator[tuple[PlannedRow, bytes | None, str]]  # with the picture's bytes, and the ending of its file's name


def write_shard(plan: PlannedShard) -> None:
    """Write a shard under another name and rename it when it is whole.

    Raises:
        InputError: a picture changed since it was looked at, or the shard can't be written.
    """
    temporary = temporary_path(plan.path)
    write = _write_parquet if plan.kind == "parquet" else _write_tar
    try:
        write(temporary, ((row, *_read_picture(row, plan.read_cell)) for row in plan.rows))
        os.replace(temporary, plan.path)
    except OSError as error:
        sentence = describe_refusal(error, path=plan.path)
        raise InputError(sentence or f"Cannot write {plan.path} ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def describe_shard(plan: PlannedShard) -> ShardEntry:
    """The entry of a written shard in the manifest."""
    labels = Counter(row.label for row in plan.rows if row.label is not None)
    size = plan.path.stat().st_size
    return {"file": plan.path.name, "rows": len(plan.rows), "bytes": size, "labels": dict(sorted(labels.items()))}


def find_damage(plan: PlannedShard, size: int | None) -> str | None:
    """What is wrong with a shard on the disk that had `size` bytes (None: nobody noted them); None for a sound one.

    Its rows are counted, and the last one is read.
    """
    count, last = len(plan.rows), plan.rows[-1]
    shard = Shard(LocalFileSystem(), str(plan.path), size, count)
    try:
        (row,) = [read() for _, read in iterate_shard(shard, plan.kind, start=count - 1, stop=count)]
    except ShardError as error:
        return str(error)
    is_cut = plan.kind != "parquet" and plan.path.stat().st_size % tarfile.RECORDSIZE
    return "its end is missing" if is_cut or (row.guid, row.label) != (last.guid, last.label) else None


def _read_picture(row: PlannedRow, read_cell: CellReader | None) -> tuple[bytes | None, str]:
    if row.image_key is None:
        return None, ""
    source, ending = b"", PICTURE_SUFFIXES[0]  # a cell has no name; readers go by the content
    if isinstance(row.picture, FileState):
        source, ending = read_file(row.picture) or b"", Path(row.picture.path).suffix
    elif isinstance(row.picture, PictureCell) and read_cell is not None:
        source = read_cell(row.picture)
    if hashlib.sha256(source).hexdigest() != row.image_key:
        raise InputError(f"The picture of {row.guid!r} changed while shards were made; start again.")
    return source, ending


def _write_parquet(path: Path, rows: Rows) -> None:
    # Pictures are compressed already; the schema's metadata tell `datasets` which column is the picture.
    schema = FEATURES.arrow_schema
    with pq.ParquetWriter(path, schema, compression={"image.bytes": "NONE", "text": "SNAPPY"}) as writer:
        while group := list(islice(rows, _ROWS_PER_GROUP)):
            columns = [[getattr(row, name) for row, _, _ in group] for name in ("guid", "text", "label")]
            images = [image and {"bytes": image, "path": f"{row.guid}{ending}"} for row, image, ending in group]
            writer.write_table(pa.table([*columns, images], schema=schema))


def _write_tar(path: Path, rows: Rows) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, image, ending in rows:
            details = json.dumps({"guid": row.guid, "label": row.label}, ensure_ascii=False)
            for name, content in ((ending, image), (".txt", row.text), (".json", details)):
                if content is not None:
                    source = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
                    member = tarfile.TarInfo(f"{row.number:09d}{name}")  # its time and owner are 0
                    member.size = len(source)
                    archive.addfile(member, io.BytesIO(source))
