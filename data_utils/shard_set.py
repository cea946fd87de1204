"""Shards of a data set: which files they are, on disk or behind any URL of fsspec, and how many rows they hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from data_utils.arguments import SHARD_SUFFIXES
from data_utils.errors import InputError

MANIFEST = "shards.json"
VERSION = 1
PARTS = ("train", "validation", "test")
# What readers need of a manifest, and of its entry of a shard.
_FIELDS = {"format": str, "complete": bool, "parts": dict}
_ENTRY_FIELDS = {"file": str, "rows": int, "bytes": int, "labels": dict}
_GLOB_MARKS = frozenset("*?[")
_FOOTER_THREADS = 16


@dataclass(frozen=True)
class Shard:
    """One file of rows.

    Attributes:
        url: as fsspec opens it.
        size: bytes.
        rows: None where only a pass through the file would tell.
        labels: rows by label; None where nobody counted them.
    """

    url: str
    size: int
    rows: int | None = None
    labels: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.url).name

    @property
    def path(self) -> Path | None:
        """The file on disk; None where the URL is of something else."""
        return Path(self.url.removeprefix("file://")) if self.url.startswith("file://") else None


@dataclass(frozen=True)
class ShardSet:
    """The shards of one part of a data set, in the order of their names.

    Attributes:
        kind: parquet or webdataset.
        shards: at least one.
    """

    kind: str
    shards: tuple[Shard, ...]

    @cached_property
    def starts(self) -> np.ndarray | None:
        """The number of the first row of each shard, and of all rows behind them: int64 (shards + 1)."""
        rows = [shard.rows for shard in self.shards]
        return None if None in rows else np.cumsum([0, *rows], dtype=np.int64)

    @property
    def num_rows(self) -> int | None:
        """Rows of all shards; None where only a full pass would tell."""
        return None if self.starts is None else int(self.starts[-1])

    @property
    def label_counts(self) -> Counter[str] | None:
        """Rows by label; None where nobody counted them."""
        if any(shard.labels is None for shard in self.shards):
            return None
        return sum((Counter(shard.labels) for shard in self.shards), Counter())

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' names, sizes and rows; the same on every machine with the same shards."""
        content = [self.kind, [[shard.name, shard.size, shard.rows] for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def find_shards(location: str, part: str) -> ShardSet | None:
    """The shards of a part, without opening more than the manifest or the footers of Parquet files.

    A folder that `data_utils.shard` wrote has shards.json. Elsewhere a file belongs to the part its name begins with
    (train, validation, test); where no name begins so, all files are for training, and for prediction too. The test
    part of a glob or a file is all that it names.

    Args:
        location: a folder, a glob or a file, on disk or as a URL of fsspec.
        part: train, validation or test.

    Returns:
        The part's shards; None where there are none.

    Raises:
        InputError: the location can't be read, or its files are of both formats.
    """
    try:
        files, path = url_to_fs(str(Path(location).expanduser()) if "://" not in location else location)
        manifest = _read_manifest(files, path)
        if manifest is not None:
            shards = [_listed(files, f"{path}/{entry['file']}", entry) for entry in manifest["parts"].get(part, ())]
            return ShardSet(manifest["format"], tuple(shards)) if shards else None
        found = _list_files(files, path)
        # A glob or a file says itself what is to be predicted, whatever it is called.
        chosen = found if part == "test" and not files.isdir(path) else _choose_part(found, part)
        return _open_foreign(files, chosen, location) if chosen else None
    except InputError:
        raise
    except Exception as error:  # a file system raises what the library behind it does, which need be no OSError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"The shards in {location} can't be read ({reason}); check --data_dir (or --predict), which takes a "
            "folder, glob or file, on disk or as a URL of fsspec whose package is installed."
        ) from error


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """shards.json of a folder on disk, finished or not; None where there is none."""
    path = folder / MANIFEST
    return _parse_manifest(path.read_bytes(), str(path)) if path.is_file() else None


def _read_manifest(files: AbstractFileSystem, path: str) -> dict[str, Any] | None:
    name = f"{path}/{MANIFEST}"
    may_be_files = _GLOB_MARKS & set(path) or path.endswith(tuple(SHARD_SUFFIXES.values()))
    if (may_be_files and not files.isdir(path)) or not files.isfile(name):
        return None
    manifest = _parse_manifest(files.cat_file(name), name)
    if not manifest["complete"]:
        raise InputError(
            f"{name} says that the shards aren't finished; run the same `python -m data_utils.shard` again."
        )
    return manifest


def _parse_manifest(source: bytes, name: str) -> dict[str, Any]:
    try:
        manifest = json.loads(source)
        version = manifest["version"]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{name} is no manifest of shards; copy it again, or write the shards anew.") from error
    if version != VERSION:
        raise InputError(f"{name} is of version {version}, this program reads {VERSION}; write the shards anew.")
    _check_fields(manifest, _FIELDS, name)
    if manifest["format"] not in SHARD_SUFFIXES:
        raise InputError(
            f"{name} names the format {manifest['format']!r}, this program reads {' and '.join(SHARD_SUFFIXES)}; "
            "copy it again, or write the shards anew into another folder."
        )
    _check_fields(manifest["parts"], dict.fromkeys(manifest["parts"], list), name)
    for entry in chain.from_iterable(manifest["parts"].values()):
        _check_fields(entry, _ENTRY_FIELDS, name)
        _check_fields(entry["labels"], dict.fromkeys(entry["labels"], int), name)
    return manifest


def _check_fields(found: object, kinds: Mapping[str, type], name: str) -> None:
    """Refuse a piece of the manifest `name` in which a field is missing, or of another kind than its readers need."""
    for field, kind in kinds.items():
        if not isinstance(found, dict) or not isinstance(found.get(field), kind):
            raise InputError(
                f"{name} is damaged: {field!r} is missing, or no {kind.__name__}; copy it again, or write the shards "
                "anew into another folder."
            )


def _listed(files: AbstractFileSystem, path: str, entry: Mapping[str, Any]) -> Shard:
    return Shard(files.unstrip_protocol(path), entry["bytes"], entry["rows"], entry["labels"])


def _list_files(files: AbstractFileSystem, path: str) -> dict[str, int]:
    """Path and bytes of every file that a shard may be, sorted."""
    if files.isdir(path):  # before globbing, since a folder's own name may hold marks of a glob
        found = {info["name"]: info for info in files.ls(path, detail=True)}
    elif _GLOB_MARKS & set(path):
        found = files.glob(path, detail=True)
    else:
        found = {path: files.info(path)}
    ends = tuple(SHARD_SUFFIXES.values())
    return {
        name: info["size"] for name, info in sorted(found.items()) if name.endswith(ends) and info["type"] == "file"
    }


def _choose_part(found: Mapping[str, int], part: str) -> dict[str, int]:
    def belongs_to(name: str, part: str) -> bool:
        return PurePosixPath(name).name.startswith(part)

    named = {name: size for name, size in found.items() if belongs_to(name, part)}
    if named or part == "validation" or any(belongs_to(name, other) for name in found for other in PARTS):
        return named
    return dict(found)


def _open_foreign(files: AbstractFileSystem, found: Mapping[str, int], location: str) -> ShardSet:
    kinds = {kind for kind, end in SHARD_SUFFIXES.items() if any(name.endswith(end) for name in found)}
    if len(kinds) > 1:
        raise InputError(f"{location} holds .parquet and .tar files; name those of one format with a glob.")
    kind = kinds.pop()
    shards = [Shard(files.unstrip_protocol(name), size) for name, size in found.items()]
    if kind == "parquet":
        with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
            rows = list(threads.map(_count_parquet_rows, shards))
        shards = [replace(shard, rows=count) for shard, count in zip(shards, rows, strict=True)]
    return ShardSet(kind, tuple(shards))


def _count_parquet_rows(shard: Shard) -> int:
    files, path = url_to_fs(shard.url)
    with files.open(path, "rb") as file:
        return pq.read_metadata(file).num_rows
