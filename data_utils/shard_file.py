"""What all formats of shards have in common: the row they give, and how their files are opened."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
from fsspec.core import url_to_fs

from data_utils.errors import RankError
from data_utils.shard_set import Shard

GUID_COLUMNS = ("guid", "id", "__key__")


class ShardError(RankError):
    """A shard that turns out unreadable, or a row that --on_bad_pair error refuses, while the program runs."""


@dataclass(frozen=True)
class ShardRow:
    """One row as it lies in its shard; `text`, `image` and `label` are None where there is none."""

    guid: str
    text: str | None
    image: bytes | None
    label: str | float | None


Row = tuple[int, Callable[[], ShardRow]]


@contextmanager
def naming(shard: Shard) -> Iterator[None]:
    """Errors of reading as `ShardError`, with the shard's name."""
    try:
        yield
    except (OSError, ValueError, LookupError, tarfile.TarError, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ShardError(f"The shard {shard.url} can't be read ({reason}); copy it again or take it out.") from error


@contextmanager
def opened(shard: Shard) -> Iterator[BinaryIO]:
    """The shard's file; errors in here are `ShardError`."""
    with naming(shard):
        files, path = url_to_fs(shard.url)
        with files.open(path, "rb") as file:
            yield file
