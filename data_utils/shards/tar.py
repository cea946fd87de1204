"""Rows out of a WebDataset tar: neighbouring files whose names are equal up to the first dot are one row."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from data_utils.shards.shard_file import GUID_COLUMNS, Row, Shard, ShardError, ShardRow, find_guid, open_shard
from data_utils.shards.tar_files import Members, TarFiles
from data_utils.sources.encodings import decode_text
from data_utils.sources.pictures import PICTURE_SUFFIXES
from data_utils.system.bounded import parse_json

_COLUMN_OF = {"txt": "text", "cls": "label", **{suffix.removeprefix("."): "image" for suffix in PICTURE_SUFFIXES}}
# Pictures that aren't read: a row that has no other file is a row all the same, whose faults are entered.
_OTHER_PICTURES = ("gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jxl", "jp2", "svg", "ppm", "pgm", "pnm")
_ENDINGS = frozenset((*_COLUMN_OF, *_OTHER_PICTURES, "json"))
# Texts that lie beside the rows.
_DOCUMENTS = re.compile(
    r"(readme|licen[sc]e|copying|notice|authors|citation|change[-_]?log|contributing|requirements|classes|labels|"
    r"categories|index|manifest|metadata|checksums|filelist)(?![a-z0-9])",
    re.IGNORECASE,
)
_LOOKED_AT = 16
_SHOWN = 40


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; of rows before `start` only the headers are read."""
    with open_shard(shard) as file:
        files = TarFiles(file)
        rows = enumerate(_iterate_rows(files))
        for number, (key, members) in rows:
            if number + 1 == shard.rows and next(rows, None) is not None:
                raise ShardError(f"{shard.url} has more than the {shard.rows} rows that were announced; copy it again.")
            if number >= start:
                yield number, lambda k=key, m=members: _read_row(shard, files, k, m)


def iterate_texts(shard: Shard) -> Iterator[bytes]:
    """The texts alone, not decoded; pictures are passed over."""
    with open_shard(shard) as file:
        files = TarFiles(file)
        for _, members in _iterate_rows(files):
            if "txt" in members:
                yield files.read(members["txt"])


def find_columns(shard: Shard) -> dict[str, set[str]]:
    """The endings in the first rows, and of what lies between them, by their meaning."""
    found: dict[str, set[str]] = {}
    with open_shard(shard) as file:
        files, rows = TarFiles(file), 0
        for key, members in files.iterate_groups():
            for ending in members:
                found.setdefault(_COLUMN_OF.get(ending, ending), set()).add(f".{ending}")
            if "label" in _read_details(files, members):  # null too: other rows may have one
                found.setdefault("label", set()).add(".json with label")
            rows += _is_row(files, key, members)
            if rows == _LOOKED_AT:
                break
    return found


def _iterate_rows(files: TarFiles) -> Iterator[tuple[str, Members]]:
    """Key and files of each group that is a row.

    Raises:
        tarfile.ReadError: a row's files stand in several places, so that each of them would be a row of its own.
    """
    seen = set()
    for key, members in files.iterate_groups():
        if not _is_row(files, key, members):
            continue
        if key in seen:
            name = next(iter(members.values())).name
            raise tarfile.ReadError(
                f"{name} stands apart from earlier files of the same row; pack the files again with tar --sort=name"
            )
        seen.add(key)
        yield key, members


def _is_row(files: TarFiles, key: str, members: Members) -> bool:
    """Whether files of one name are a row, and not a document or something else that lies beside the rows.

    Raises:
        tarfile.ReadError: they are several rows.
    """
    _refuse_several(key, members)
    known = {ending.rpartition(".")[2] for ending in members} & _ENDINGS  # also of 1.large.jpg
    if known == {"txt"}:
        return not _DOCUMENTS.match(posixpath.basename(key))
    if known == {"json"}:
        return not _read_details(files, members).keys().isdisjoint(("label", *GUID_COLUMNS))
    return bool(known)


def _refuse_several(key: str, members: Members) -> None:
    """Refuse rows that go by one name since theirs have dots before the ending, like photo.1.jpg and photo.2.jpg."""
    kinds: dict[str, set[str]] = {}
    for ending in members:
        middle, _, last = ending.rpartition(".")
        if last in _COLUMN_OF:
            kinds.setdefault(middle, set()).add(_COLUMN_OF[last])
    most = max(map(len, kinds.values()), default=0)
    alike = [middle for middle, found in kinds.items() if len(found) == most and {"image", "text"} <= found]
    counts = Counter(chain(*kinds.values()))
    if "" not in kinds and max(counts["text"], counts["label"]) > 1:
        alike = list(kinds)  # nothing bears the name alone, and more than one has a text, or a label
    if len(alike) > 1:
        names = [f"{key}.{middle}" if middle else key for middle in alike[:2]]
        raise tarfile.ReadError(
            f"{names[0]} and {names[1]} would be one row, whose name ends at its first dot; write other signs for the "
            "dots within names"
        )


def _read_details(files: TarFiles, members: Members) -> dict[str, Any]:
    """Fields of the row's .json; of one that can't be read its content as the label, which nobody knows then."""
    if "json" not in members:
        return {}
    content = files.read(members["json"])
    try:
        text = content.decode("utf-8", "surrogatepass")  # as data_utils.shard writes it
    except UnicodeDecodeError:
        text = decode_text(content)[0]
    try:
        details = parse_json(text.removeprefix("\ufeff"))
    except ValueError:
        return {"label": f"{text[:_SHOWN]} (no JSON)"}
    return details if isinstance(details, dict) else {}


def _read_row(shard: Shard, files: TarFiles, key: str, members: Members) -> ShardRow:
    details = _read_details(files, members)
    sources: dict[str, bytes] = {}
    for ending, member in members.items():
        if (column := _COLUMN_OF.get(ending)) is not None and column not in sources:  # the first of several pictures
            sources[column] = files.read(member)
    guid, text, label = find_guid(details), sources.get("text"), sources.get("label")
    return ShardRow(
        guid=key if guid is None else str(guid),
        text=None if text is None else decode_text(text, shard.text_encoding)[0],
        image=sources.get("image"),
        label=details.get("label") if label is None else decode_text(label)[0].strip(),
    )
