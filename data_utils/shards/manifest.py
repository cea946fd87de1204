"""shards.json, in which data_utils.shard notes what it wrote, and the check of it before anyone relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from data_utils.sources.arguments import SHARD_SUFFIXES
from data_utils.system.bounded import MAX_DOCUMENT, parse_json, read_bounded
from modeling.errors import InputError

MANIFEST = "shards.json"
VERSION = 1
PARTS = ("train", "validation", "test")
# What readers need of a manifest, and of its entry of a shard.
_FIELDS = {"format": str, "complete": bool, "parts": dict}
_ENTRY_FIELDS = {"file": str, "rows": int, "bytes": int, "labels": dict}
_REMEDY = "copy it again, or write the shards anew into another folder."


def shard_name(part: str, number: int, count: int, kind: str) -> str:
    """The file of shard `number` of the `count` of a part."""
    return f"{part}-{number:05d}-of-{count:05d}{SHARD_SUFFIXES[kind]}"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """shards.json of a folder on disk, finished or not; None where there is none."""
    path = folder / MANIFEST
    return parse_manifest(read_bounded(path, MAX_DOCUMENT), str(path)) if path.is_file() else None


def parse_manifest(source: bytes, name: str) -> dict[str, Any]:
    """The content of a manifest, of which `name` says where it lies.

    Raises:
        InputError: it is damaged, of another version, or says what can't be.
    """
    try:
        manifest = parse_json(source)
        version = manifest["version"]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{name} is no manifest of shards; copy it again, or write the shards anew.") from error
    if version != VERSION:
        raise InputError(f"{name} is of version {version!r}, this program reads {VERSION}; write the shards anew.")
    _check_fields(manifest, _FIELDS, name)
    if manifest["format"] not in SHARD_SUFFIXES:
        raise InputError(
            f"{name} names the format {manifest['format']!r}, this program reads {' and '.join(SHARD_SUFFIXES)}; "
            f"{_REMEDY}"
        )
    _check_fields(manifest["parts"], dict.fromkeys(manifest["parts"], list), name)
    for entry in chain.from_iterable(manifest["parts"].values()):
        _check_fields(entry, _ENTRY_FIELDS, name)
        _check_fields(entry["labels"], dict.fromkeys(entry["labels"], int), name)
    for part, entries in manifest["parts"].items():
        if part not in PARTS:
            raise InputError(f"{name} is damaged: it names the part {part!r}, of {', '.join(PARTS)}; {_REMEDY}")
        for number, entry in enumerate(entries):
            _check_entry(entry, shard_name(part, number, len(entries), manifest["format"]), name)
    return manifest


def _check_fields(found: object, kinds: Mapping[str, type], name: str) -> None:
    """Refuse a piece of the manifest `name` in which a field is missing, or of another kind than its readers need."""
    for field, kind in kinds.items():
        if not isinstance(found, dict) or type(found.get(field)) is not kind:  # to Python, True is an int
            raise InputError(f"{name} is damaged: {field!r} is missing, or no {kind.__name__}; {_REMEDY}")


def _check_entry(entry: Mapping[str, Any], file: str, name: str) -> None:
    """Refuse an entry of another file than the writer calls so, or whose figures contradict each other."""
    rows, size, labelled = entry["rows"], entry["bytes"], sum(entry["labels"].values())
    if entry["file"] != file:
        raise InputError(f"{name} is damaged: it names {entry['file']!r} where {file} belongs; {_REMEDY}")
    # A row takes up a byte at least; a larger file than this has no disk.
    if not 0 < rows <= size < 2**50 or labelled > rows or min(entry["labels"].values(), default=0) < 0:
        raise InputError(
            f"{name} is damaged: of {file} it says {rows} rows, {labelled} labels and {size} bytes, which can't be; "
            f"{_REMEDY}"
        )
