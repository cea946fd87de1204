"""What all formats of shards have in common: the file, how it is opened, and the row that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from data_utils.console.screen import printable
from data_utils.system.refusals import RankError
from modeling.errors import InputError
from modeling.file_kinds import PARQUET, name_kind

GUID_COLUMNS = ("guid", "id", "__key__")
_SHOWN = 200  # characters of a library's own words
_LOOKED_AT = 1024  # bytes


class ShardError(RankError):
    """A shard that turns out unreadable, or a row that --on_bad_pair error refuses, while the program runs."""


@dataclass(frozen=True)
class Shard:
    """One file of rows; its bytes, rows and rows by label are None where nobody counted them.

    Attributes:
        files: the file system that it lies in, with all that reaches it: hosts, accounts, archives around it.
        text_encoding: of texts that are bytes, and whose own isn't certain; None: each by itself.
    """

    files: AbstractFileSystem
    path: str
    size: int | None
    rows: int | None = None
    labels: Mapping[str, int] | None = None
    text_encoding: str | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return PurePosixPath(self.path).name

    @property
    def url(self) -> str:
        """For messages: where the file lies, with the archive around it."""
        url, archive = self.files.unstrip_protocol(self.path), self.files.storage_options.get("fo")
        return url if archive is None else f"{url}::{archive}"

    @property
    def local_path(self) -> Path | None:
        """The file on disk, or the archive on disk that it lies in; None where it is elsewhere."""
        if isinstance(self.files, LocalFileSystem):
            return Path(self.path)
        options = self.files.storage_options
        return Path(options.get("fo", self.path)) if options.get("target_protocol") == "file" else None

    def open_files(self) -> AbstractFileSystem:
        """The file system for this process and thread: those made before a fork may not be used behind it."""
        return type(self.files)(*self.files.storage_args, **self.files.storage_options)


@dataclass(frozen=True)
class ShardRow:
    """One row as it lies in its shard; `text`, `image` and `label` are None where there is none."""

    guid: str
    text: str | None
    image: bytes | None
    label: str | float | None


Row = tuple[int, Callable[[], ShardRow]]


def find_guid(fields: Mapping[str, Any]) -> Any | None:
    """The guid among a row's fields by their names; None where there is none."""
    return next((fields[name] for name in GUID_COLUMNS if fields.get(name) is not None), None)


def describe_error(error: Exception) -> str:
    """A library's own words, cut, in one line."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), _SHOWN)


@contextmanager
def wrap_read_errors(shard: Shard) -> Iterator[None]:
    """Errors of reading as `ShardError`, with the shard's name.

    A damaged file makes the libraries below (pyarrow, datasets, tarfile, what is behind a URL) raise every exception.
    """
    try:
        yield
    except (ShardError, InputError):
        raise
    except Exception as error:
        message = f"The shard {shard.url} can't be read ({describe_error(error)}); copy it again or take it out."
        raise ShardError(message) from error


@contextmanager
def open_shard(shard: Shard) -> Iterator[BinaryIO]:
    """The shard's file; errors in here are `ShardError`, and so is another size than was announced."""
    with wrap_read_errors(shard):
        files = shard.open_files()
        with files.open(shard.path, "rb") as file:
            try:
                found = files.size(shard.path)
                if None not in (found, shard.size) and found != shard.size:
                    raise OSError(f"{found} bytes instead of {shard.size}")
                yield file
            except Exception as error:
                file.seek(0)
                kind = name_kind(file.read(_LOOKED_AT))
                if kind not in (None, PARQUET):  # another file in its place, like a pointer to it
                    raise ShardError(f"The shard {shard.url} is {kind}.") from error
                raise
