"""Rows out of a WebDataset tar: neighbouring files whose names are equal up to the first dot are one row."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from data_utils.encodings import decode_text
from data_utils.pictures import PICTURE_SUFFIXES
from data_utils.shard_file import GUID_COLUMNS, Row, ShardRow, opened
from data_utils.shard_set import Shard

_COLUMN_OF = {"txt": "text", "cls": "label", **{suffix.removeprefix("."): "image" for suffix in PICTURE_SUFFIXES}}
_LOOKED_AT = 16
_SHOWN = 40
Members = dict[str, tarfile.TarInfo]


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; of rows before `start` only the headers are read."""
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for number, (key, members) in enumerate(_iterate_members(archive)):
            if number >= start:
                yield number, lambda k=key, m=members: _read_members(archive, k, m)


def iterate_texts(shard: Shard) -> Iterator[str]:
    """The texts alone; pictures are passed over."""
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for _, members in _iterate_members(archive):
            if "txt" in members:
                yield decode_text(archive.extractfile(members["txt"]).read())[0]


def find_columns(shard: Shard) -> dict[str, set[str]]:
    """The endings in the first rows by their meaning."""
    found: dict[str, set[str]] = {}
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for _, members in islice(_iterate_members(archive), _LOOKED_AT):
            for ending in members:
                found.setdefault(_COLUMN_OF.get(ending, ending), set()).add(f".{ending}")
            if "label" in _read_details(archive, members):  # null too: other rows may have one
                found.setdefault("label", set()).add(".json with label")
    return found


def _iterate_members(archive: tarfile.TarFile) -> Iterator[tuple[str, Members]]:
    """Key and members by ending of each row."""
    current, members = None, {}
    for member in archive:
        archive.members = []  # or the archive would remember every file that it has passed
        if not member.isfile():
            continue
        path = PurePosixPath(member.name)
        stem, _, ending = path.name.partition(".")
        key = str(path.with_name(stem)) if stem else member.name
        if key != current and members:
            yield current, members
            members = {}
        current = key
        members[ending.lower()] = member
    if members:
        yield current, members
    _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Refuse an archive without the empty block at its end, at whose cut or damage tarfile would just stop."""
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"after {archive.offset} bytes comes neither a file nor the archive's end")


def _read_details(archive: tarfile.TarFile, members: Members) -> dict[str, Any]:
    """Fields of the row's .json; of one that can't be read its content as the label, which nobody knows then."""
    if "json" not in members:
        return {}
    content = archive.extractfile(members["json"]).read()
    try:
        text = content.decode("utf-8", "surrogatepass")  # as data_utils.shard writes it
    except UnicodeDecodeError:
        text = decode_text(content)[0]
    try:
        details = json.loads(text.removeprefix("\ufeff"))
    except ValueError:
        return {"label": f"{text[:_SHOWN]} (no JSON)"}
    return details if isinstance(details, dict) else {}


def _read_members(archive: tarfile.TarFile, key: str, members: Members) -> ShardRow:
    def read(ending: str) -> bytes | None:
        return archive.extractfile(members[ending]).read() if ending in members else None

    details = _read_details(archive, members)
    text, number = read("txt"), read("cls")
    return ShardRow(
        guid=str(next((details[name] for name in GUID_COLUMNS if details.get(name) is not None), key)),
        text=None if text is None else decode_text(text)[0],
        image=next((read(ending) for ending in members if _COLUMN_OF.get(ending) == "image"), None),
        label=details.get("label") if number is None else decode_text(number)[0].strip(),
    )
