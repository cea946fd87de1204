"""One shard onto the disk, whole or not at all; the same rows give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value

from data_utils.prepare.pair_files import PairFolder
from data_utils.sources.records import Record
from data_utils.system.files import temporary_path
from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError

FEATURES = Features({"guid": Value("string"), "text": Value("string"), "label": Value("string"), "image": Image()})
# Rows that a reader has to take in together, with their pictures.
_ROWS_PER_GROUP = 64
# Ending of the last file of each row in a tar.
_TAR_DETAILS = ".json"


@dataclass(frozen=True)
class PlannedRow:
    """A row to be written.

    Attributes:
        number: in its part; the key in a tar, where names must be plain and differ.
        guid: of the list.
        text: decoded; None where there is none.
        label: None for an unlabelled row.
        image_key: SHA-256 of the picture's file as it was found; None for a row without a sound picture.
    """

    number: int
    guid: str
    text: str | None
    label: str | None
    image_key: str | None


@dataclass(frozen=True)
class PlannedShard:
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
    try:
        _WRITERS[plan.kind](temporary, ((row, *_read_picture(folder, row)) for row in plan.rows))
        os.replace(temporary, plan.path)
    except OSError as error:
        sentence = describe_refusal(error, path=plan.path)
        raise InputError(sentence or f"Cannot write {plan.path} ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def describe_shard(plan: PlannedShard) -> dict[str, Any]:
    """The entry of a written shard in the manifest."""
    labels = Counter(row.label for row in plan.rows if row.label is not None)
    return {
        "file": plan.path.name,
        "rows": len(plan.rows),
        "bytes": plan.path.stat().st_size,
        "labels": dict(sorted(labels.items())),
    }


def find_damage(plan: PlannedShard, size: int | None) -> str | None:
    """What is wrong with a shard that is on the disk; its rows are counted, but not read.

    Args:
        plan: of the shard.
        size: bytes that it had when it was written; None where nobody noted them.

    Returns:
        None for a sound one.
    """
    try:
        found, rows = plan.path.stat().st_size, _COUNTERS[plan.kind](plan.path)
    except (OSError, ValueError, tarfile.TarError, pa.ArrowException) as error:
        return f"{type(error).__name__}: {error}"
    if size not in (None, found):
        return f"{found} bytes instead of {size}"
    return None if rows == len(plan.rows) else f"{rows} rows instead of {len(plan.rows)}"


def _count_parquet(path: Path) -> int:
    return pq.read_metadata(path).num_rows


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


WrittenRow = tuple[PlannedRow, bytes | None, str]


def _write_parquet(path: Path, rows: Iterable[WrittenRow]) -> None:
    # Pictures are compressed already; the schema's metadata tell `datasets` which column is the picture.
    schema = FEATURES.arrow_schema
    with pq.ParquetWriter(path, schema, compression={"image.bytes": "NONE", "text": "SNAPPY"}) as writer:
        for group in _grouped(rows):
            columns = [
                [row.guid for row, _, _ in group],
                [row.text for row, _, _ in group],
                [row.label for row, _, _ in group],
                [None if image is None else {"bytes": image, "path": f"{row.guid}{end}"} for row, image, end in group],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _grouped(rows: Iterable[WrittenRow]) -> Iterator[list[WrittenRow]]:
    group: list[WrittenRow] = []
    for row in rows:
        group.append(row)
        if len(group) == _ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def _write_tar(path: Path, rows: Iterable[WrittenRow]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row, image, ending in rows:
            key = f"{row.number:09d}"
            if image is not None:
                _add(archive, f"{key}{ending}", image)
            if row.text is not None:
                _add(archive, f"{key}.txt", row.text.encode("utf-8", "surrogatepass"))
            details = json.dumps({"guid": row.guid, "label": row.label}, ensure_ascii=False)
            _add(archive, f"{key}{_TAR_DETAILS}", details.encode("utf-8", "surrogatepass"))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time and owner are 0
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


_WRITERS = {"parquet": _write_parquet, "webdataset": _write_tar}
_COUNTERS = {"parquet": _count_parquet, "webdataset": _count_tar}
