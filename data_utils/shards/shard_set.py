"""The shards of a data set: which files they are, on disk or behind any URL of fsspec, and how many rows they hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from data_utils.shards.manifest import MANIFEST, PARTS, read_manifest
from data_utils.shards.parquet import count_rows
from data_utils.shards.shard_file import Shard, ShardError, describe_error
from data_utils.sources.arguments import SHARD_SUFFIXES
from modeling.errors import InputError

_GLOB_MARKS = frozenset("*?[")
_ENDINGS = tuple(SHARD_SUFFIXES.values())
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
_FOOTER_THREADS = 16


@dataclass(frozen=True)
class ShardSet:
    """The shards of one part of a data set, at least one, in the order of their names.

    `kind` is their format; `labels` are the classes that shards.json names, in their order.
    """

    kind: str
    shards: tuple[Shard, ...]
    labels: Sequence[str] | None = None

    def with_text_encoding(self, encoding: str | None) -> ShardSet:
        """The same shards, whose texts are read in this encoding where they are bytes and don't tell their own."""
        return replace(self, shards=tuple(replace(shard, text_encoding=encoding) for shard in self.shards))

    @property
    def text_encoding(self) -> str | None:
        """See `with_text_encoding`."""
        return self.shards[0].text_encoding

    @cached_property
    def starts(self) -> np.ndarray | None:
        """The number of the first row of each shard, and of all rows behind them: int64 (shards + 1)."""
        rows = [shard.rows for shard in self.shards if shard.rows is not None]
        return np.cumsum([0, *rows], dtype=np.int64) if len(rows) == len(self.shards) else None

    @property
    def num_rows(self) -> int | None:
        """Rows of all shards; None where only a full pass would tell."""
        return None if self.starts is None else int(self.starts[-1])

    @property
    def label_counts(self) -> Counter[str] | None:
        """Rows by label; None where nobody counted them."""
        labels = [shard.labels for shard in self.shards if shard.labels is not None]
        return sum(map(Counter, labels), Counter()) if len(labels) == len(self.shards) else None

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' names, sizes and rows; the same on every machine with the same shards."""
        content = [self.kind, [[shard.name, shard.size, shard.rows] for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def find_shards(location: str, part: str) -> ShardSet | None:
    """The shards of a part (train, validation or test) in a folder, a glob or a file, on disk or as a URL of fsspec.

    No more is opened than the manifest or Parquet's footers.

    A folder that `data_utils.shard` wrote has shards.json. Elsewhere a file belongs to the part its name begins with;
    where no name begins with any, all files are for training, and for prediction too. The test part of a glob or a file
    is all that it names. None where the part has no shards.

    Raises:
        InputError: the location can't be read, or its files are of both formats.
    """
    try:
        files, path = _locate(location)
        # A folder's own name may hold marks of a glob, or end as a file's.
        is_folder = files.isdir(path) or not (_GLOB_MARKS & set(path) or path.endswith(_ENDINGS))
        manifest = read_manifest(files, path) if is_folder else None
        if manifest is not None:
            return _open_own(files, path, manifest, part)
        found = _list_files(files, path)
        names = {name: PurePosixPath(name).name for name in found}
        # A glob or a file says itself what is to be predicted, whatever it is called.
        is_all = part == "test" and not files.isdir(path)
        if not is_all and (part == "validation" or any(name.startswith(PARTS) for name in names.values())):
            found = {name: size for name, size in found.items() if names[name].startswith(part)}
        return _open_foreign(files, found, location) if found else None
    except InputError:
        raise
    except ShardError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # a file system raises what the library behind it does, which need be no OSError
        raise InputError(
            f"The shards in {location} can't be read ({describe_error(error)}); check --data_dir (or --predict), which "
            "takes a folder, glob or file, on disk or as a URL of fsspec whose package is installed."
        ) from error


def _locate(location: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a location, and the path in it."""
    local = Path(location).expanduser()
    if "://" not in location and local.exists():  # its name may look like a URL or a chain of them
        return LocalFileSystem(), str(local.absolute())
    return url_to_fs(location if "://" in location else str(local))


def _open_own(files: AbstractFileSystem, path: str, manifest: dict[str, Any], part: str) -> ShardSet | None:
    if not manifest["complete"]:
        raise InputError(
            f"{path}/{MANIFEST} says that the shards aren't finished; run the same `python -m data_utils.shard` again."
        )
    if isinstance(files, LocalFileSystem):
        listed = {f"{path}/{entry['file']}" for entries in manifest["parts"].values() for entry in entries}
        if others := sorted(_list_files(files, path).keys() - listed):
            raise InputError(
                f"{others[0]} is not listed in {path}/{MANIFEST}, so its rows would not be read; take it out, or name "
                "the shards with a glob, which reads them without that list."
            )
    shards = [
        Shard(files, f"{path}/{entry['file']}", entry["bytes"], entry["rows"], entry["labels"])
        for entry in manifest["parts"].get(part, ())
    ]
    return ShardSet(manifest["format"], tuple(shards), manifest.get("labels")) if shards else None


def _list_files(files: AbstractFileSystem, path: str) -> dict[str, int | None]:
    """Path and bytes of every file that a shard may be, sorted."""
    if files.isdir(path):
        found = {info["name"]: info for info in files.ls(path, detail=True)}
    elif _GLOB_MARKS & set(path):
        found = files.glob(path, detail=True)
    else:
        found = {path: files.info(path)}
    packed = next((name for name in sorted(found) if name.endswith(_PACKED)), None)
    if packed is not None and not any(name.endswith(_ENDINGS) for name in found):
        raise InputError(
            f"{files.unstrip_protocol(packed)} is compressed; unpack it to a .tar (gunzip, unzstd, xz -d)."
        )
    sizes = {}
    for name, info in sorted(found.items()):
        # Names with a dot before are litter, as what macOS lays beside each file on a foreign disk.
        if name.endswith(_ENDINGS) and info["type"] != "directory" and not PurePosixPath(name).name.startswith("."):
            status = info if info["type"] == "file" else files.info(name)  # of a link, of what it points to
            if status["type"] != "file":
                raise InputError(
                    f"{files.unstrip_protocol(name)} is no file that may be read; take it out, or put it right."
                )
            sizes[name] = status["size"]
    return sizes


def _open_foreign(files: AbstractFileSystem, found: Mapping[str, int | None], location: str) -> ShardSet:
    kinds = {kind for kind, end in SHARD_SUFFIXES.items() if any(name.endswith(end) for name in found)}
    if len(kinds) > 1:
        raise InputError(f"{location} holds .parquet and .tar files; name those of one format with a glob.")
    kind = kinds.pop()
    shards = [Shard(files, name, size) for name, size in found.items()]
    if kind == "parquet":
        with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
            rows = list(threads.map(count_rows, shards))
        shards = [replace(shard, rows=count) for shard, count in zip(shards, rows, strict=True)]
    return ShardSet(kind, tuple(shards))
