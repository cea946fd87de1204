"""shards.json, in which data_utils.shard notes what it wrote, and the check of it before anyone relies on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from fsspec import AbstractFileSystem

from data_utils.sources.arguments import SHARD_SUFFIXES
from data_utils.system.bounded import MAX_DOCUMENT, parse_json
from data_utils.system.schema import Within, check_types
from modeling.errors import InputError

MANIFEST = "shards.json"
VERSION = 1
PARTS = ("train", "validation", "test")
_REMEDY = "copy it again, or write the shards anew into another folder"
_MOST = 2**50  # bytes; a larger file has no disk


class ShardEntry(TypedDict):
    """What is noted of a shard; `labels` are its rows by label."""

    file: str
    rows: Annotated[int, Within(1, _MOST)]
    bytes: Annotated[int, Within(1, _MOST)]
    labels: dict[str, Annotated[int, Within(0, _MOST)]]


class Manifest(TypedDict):
    """What readers need of shards.json."""

    version: Literal[1]
    format: Literal["parquet", "webdataset"]
    complete: bool
    labels: NotRequired[list[str]]
    parts: dict[Literal["train", "validation", "test"], list[ShardEntry]]


def shard_name(part: str, number: int, count: int, kind: str) -> str:
    """The file of shard `number` of the `count` of a part."""
    return f"{part}-{number:05d}-of-{count:05d}{SHARD_SUFFIXES[kind]}"


def read_manifest(files: AbstractFileSystem, folder: str) -> dict[str, Any] | None:
    """The `Manifest` of a folder, finished or not; None where there is none.

    Raises:
        InputError: it is damaged, of another version, or says what can't be.
    """
    name = f"{folder}/{MANIFEST}"
    if not files.isfile(name):
        return None
    with files.open(name, "rb") as file:
        source = file.read(MAX_DOCUMENT + 1)
    if len(source) > MAX_DOCUMENT:
        raise InputError(f"{name} has more than {MAX_DOCUMENT:,} bytes, as no manifest of shards has; {_REMEDY}.")
    try:
        manifest = parse_json(source)
    except ValueError as error:
        raise InputError(f"{name} is no manifest of shards; {_REMEDY}.") from error
    check_types(manifest, Manifest, name, remedy=_REMEDY)
    for part, entries in manifest["parts"].items():
        for number, entry in enumerate(entries):
            file_name = shard_name(part, number, len(entries), manifest["format"])
            if entry["file"] != file_name:  # or it would lead anywhere
                raise InputError(f"{name} names {entry['file']!r} where {file_name} belongs; {_REMEDY}.")
            rows, size, labelled = entry["rows"], entry["bytes"], sum(entry["labels"].values())
            if rows > size or labelled > rows:  # a row takes up a byte at least
                raise InputError(
                    f"{name} says that {file_name} has {rows} rows, {labelled} labels and {size} bytes, which can't "
                    f"be; {_REMEDY}."
                )
    return manifest
