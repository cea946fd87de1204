"""One shard onto the disk, whole or not at all; the same rows give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value

from data_utils.prepare.pair_files import PairFolder
from data_utils.shards.shard_file import describe_error
from data_utils.sources.records import Record
from data_utils.system.files import temporary_path
from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError

FEATURES = Features({"guid": Value("string"), "text": Value("string"), "label": Value("string"), "image": Image()})
# Rows that a reader has to take in together, with their pictures.
_ROWS_PER_GROUP = 64
# Ending of the last file of each row in a tar.
_TAR_DETAILS = ".json"


class PlannedRow(NamedTuple):
    """A row to be written: `text`, `label` and `image_key` are None where there is none.

    Attributes:
        number: in its part; the key in a tar, where names must be plain and differ.
        image_key: SHA-256 of the picture's file as it was found.
    """

    number: int
    guid: str
    text: str | None
    label: str | None
    image_key: str | None


class PlannedShard(NamedTuple):
    """A shard to be written: its path and format, the folder of the pictures, and its rows."""

    path: Path
    kind: str
    folder: Path
    rows: tuple[PlannedRow, ...]


def write_shard(plan: PlannedShard) -> None:
    """Write a shard under another name and rename it when it is whole.

    Raises:
        InputError: a picture changed since it was looked at, or the shard can't be written.
    """
    temporary, folder = temporary_path(plan.path), PairFolder(plan.folder)
    write = _write_parquet if plan.kind == "parquet" else _write_tar
    try:
        write(temporary, ((row, *_read_picture(folder, row)) for row in plan.rows))
        os.replace(temporary, plan.path)
    except OSError as error:
        sentence = describe_refusal(error, path=plan.path)
        raise InputError(sentence or f"Cannot write {plan.path} ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def describe_shard(plan: PlannedShard) -> dict[str, Any]:
    """The entry of a written shard in the manifest."""
    labels = Counter(row.label for row in plan.rows if row.label is not None)
    size = plan.path.stat().st_size
    return {"file": plan.path.name, "rows": len(plan.rows), "bytes": size, "labels": dict(sorted(labels.items()))}


def find_damage(plan: PlannedShard, size: int | None) -> str | None:
    """What is wrong with a shard on the disk that had `size` bytes (None: nobody noted them); None for a sound one.

    Its rows are counted, but not read.
    """
    try:
        found = plan.path.stat().st_size
        rows = pq.read_metadata(plan.path).num_rows if plan.kind == "parquet" else _count_tar(plan.path)
    except (OSError, ValueError, tarfile.TarError, pa.ArrowException) as error:
        return describe_error(error)
    if size not in (None, found):
        return f"{found} bytes instead of {size}"
    return None if rows == len(plan.rows) else f"{rows} rows instead of {len(plan.rows)}"


def _count_tar(path: Path) -> int:
    """Rows whose last file is there, if the archive ends as it was closed: to `tarfile` it may end anywhere."""
    with tarfile.open(path, "r:") as archive:
        rows = sum(member.name.endswith(_TAR_DETAILS) for member in archive)
        archive.fileobj.seek(-2 * tarfile.BLOCKSIZE, os.SEEK_END)
        if any(archive.fileobj.read()) or archive.fileobj.tell() % tarfile.RECORDSIZE:
            raise tarfile.ReadError("the end of the archive is missing")
    return rows


def _read_picture(folder: PairFolder, row: PlannedRow) -> tuple[bytes | None, str]:
    """The picture file's bytes and the ending of its name."""
    if row.image_key is None:
        return None, ""
    state = folder.find(Record(row.number, row.guid, row.label)).picture
    source = Path(state.path).read_bytes() if state.kind == "file" else b""
    if hashlib.sha256(source).hexdigest() != row.image_key:
        raise InputError(f"The picture of {row.guid!r} in {folder.path} changed while shards were made; start again.")
    return source, Path(state.path).suffix


def _write_parquet(path: Path, rows: Iterator[tuple[PlannedRow, bytes | None, str]]) -> None:
    # Pictures are compressed already; the schema's metadata tell `datasets` which column is the picture.
    schema = FEATURES.arrow_schema
    with pq.ParquetWriter(path, schema, compression={"image.bytes": "NONE", "text": "SNAPPY"}) as writer:
        while group := list(islice(rows, _ROWS_PER_GROUP)):
            columns = [[getattr(row, name) for row, _, _ in group] for name in ("guid", "text", "label")]
            images = [image and {"bytes": image, "path": f"{row.guid}{ending}"} for row, image, ending in group]
            writer.write_table(pa.table([*columns, images], schema=schema))


def _write_tar(path: Path, rows: Iterator[tuple[PlannedRow, bytes | None, str]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, image, ending in rows:
            details = json.dumps({"guid": row.guid, "label": row.label}, ensure_ascii=False)
            files = {ending: image, ".txt": _encode(row.text), _TAR_DETAILS: _encode(details)}
            for name, content in files.items():
                if content is not None:
                    member = tarfile.TarInfo(f"{row.number:09d}{name}")  # its time and owner are 0
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def _encode(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")
