"""Arrow caches with an explicit key: built once, whole or not at all, then memory-mapped by every process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable, concat_tables
from filelock import FileLock, Timeout

from data_utils.system.bounded import MAX_DOCUMENT, parse_json, read_bounded
from data_utils.system.files import remove
from data_utils.system.refusals import NOT_ON_DISK, ROOM, describe_room
from modeling.errors import InputError

logger = logging.getLogger(__name__)

# Raised whenever the meaning or the columns of a cache change: caches of older programs are then never opened.
SCHEMA_VERSION = 7
_META, _TABLE, _LOCK, _BUILDING = "meta.json", ".arrow", ".lock", ".building"


class _Meta(TypedDict):
    """What a finished cache holds: rows, bytes and checksum of each file, and when it was finished.

    `checked` says whether the checksums are of whole tables.
    """

    rows: int
    files: dict[str, int]
    checksums: dict[str, int]
    checked: bool
    finished: float


class _DamagedError(Exception):
    """A finished cache folder that cannot be used."""


def cache_folder(cache_dir: Path, name: str, key: str) -> Path:
    """Where `build_once` keeps the cache `name-key`."""
    return Path(cache_dir).absolute() / f"{name}-{key[:32]}"


def was_built_after(destination: Path, moment: float) -> bool:
    """Whether a cache folder was finished at `moment` (seconds since the epoch) or later."""
    try:
        return _read_meta(destination)["finished"] >= moment
    except (OSError, ValueError, LookupError, TypeError):
        return False


def build_once(
    cache_dir: Path,
    name: str,
    key: str,
    build: Callable[[Path], None],
    *,
    overwrite: bool = False,
    checked: bool = False,
) -> Dataset:
    """Open the cache `name-key`, after building it when it is not there.

    Processes and jobs that ask at the same time build it once: the first one takes a lock and builds into a folder of
    its own, which is renamed into place when it is whole; the others wait, then open it.

    Args:
        cache_dir: folder of all caches; made when missing.
        name, key: what is cached, and the hash of everything that shapes it.
        build: writes the rows into the folder it is given, as *.arrow files whose sorted names give the order; other
            files beside them are only checked.
        overwrite: build even if the cache is there, unless another process has done so since this call began.
        checked: read all of it whenever it is opened, to notice every damage; for caches that are small beside the
            work that they spare. Of others what binary columns hold is left out, as pictures.

    Raises:
        InputError: the cache folder cannot be written.
    """
    asked, destination = time.time(), cache_folder(cache_dir, name, key)
    if not overwrite:
        with contextlib.suppress(_DamagedError):  # looked at again, and said, under the lock
            return _open(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(destination):
            if destination.exists() and (not overwrite or was_built_after(destination, asked)):
                try:
                    return _open(destination)
                except _DamagedError as error:
                    logger.warning("the cache %s is damaged (%s); building it again", destination, error)
            return _build(destination, build, checked=checked)
    except OSError as error:
        if error.errno in NOT_ON_DISK:  # of the processes that built it
            raise
        room = describe_room(cache_dir) if error.errno in ROOM else ""
        raise InputError(
            f"the cache folder {cache_dir} cannot be written ({error.strerror or error}{room}); "
            "make room there, or choose another folder with --cache_dir."
        ) from error


@contextlib.contextmanager
def hold_lock(destination: Path) -> Iterator[None]:
    """Hold the lock of a folder of the cache; waits, and says so, while another process has it."""
    lock = FileLock(_lock_file(destination))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process prepares the same data; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_file(destination: Path) -> Path:
    return destination.with_name(f"{destination.name}{_LOCK}")


def _build(destination: Path, build: Callable[[Path], None], *, checked: bool) -> Dataset:
    """Build into a folder beside, note what its files should hold, and move it into place in one step."""
    _remove_leftovers(destination)
    folder = destination.with_name(f"{destination.name}{_BUILDING}")
    folder.mkdir()
    try:
        build(folder)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        meta = _Meta(
            rows=len(_map_tables(folder, files)),
            files=files,
            checksums={name: _checksum(folder / name, whole=checked) for name in files},
            checked=checked,
            finished=time.time(),
        )
        (folder / _META).write_text(json.dumps(meta), encoding="utf-8")
        remove(destination)  # whoever opens it now takes it for damaged, and waits for the lock
        os.rename(folder, destination)
        return _map_tables(destination, files)
    finally:
        remove(folder)


def _remove_leftovers(destination: Path) -> None:
    """Remove what builds left that died: whoever still builds holds the lock of its folder, as the caller does here."""
    for folder in destination.parent.glob(f"*{_BUILDING}*"):
        owner = folder.with_name(folder.name.split(_BUILDING)[0])
        if owner == destination:
            remove(folder)
        else:
            with contextlib.suppress(Timeout), FileLock(_lock_file(owner)).acquire(timeout=0):
                remove(folder)


def _open(folder: Path) -> Dataset:
    """Memory-map a finished cache; files of another size or checksum than when it was finished count as damage."""
    try:
        meta = _read_meta(folder)
        for name, size in meta["files"].items():
            if (folder / name).stat().st_size != size:
                raise _DamagedError(f"{name} has another size than it was written with")
        for name, checksum in meta["checksums"].items():
            if _checksum(folder / name, whole=meta["checked"]) != checksum:
                raise _DamagedError(f"{name} holds other bytes than were written")
        dataset = _map_tables(folder, meta["files"])
        if len(dataset) != meta["rows"]:  # to Arrow a file ends where zeros begin, as a machine that dies leaves them
            raise _DamagedError(f"{len(dataset)} rows instead of {meta['rows']}")
        return dataset
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error


def _read_meta(folder: Path) -> _Meta:
    return parse_json(read_bounded(folder / _META, MAX_DOCUMENT))


def _map_tables(folder: Path, names: Iterable[str]) -> Dataset:
    # One data set of all tables, not one per file: describing and hashing each takes longer than mapping its file.
    # The folder's name holds the cache key, so nothing needs to be hashed at all.
    tables = [MemoryMappedTable.from_file(str(folder / name)) for name in sorted(names) if name.endswith(_TABLE)]
    return Dataset(concat_tables(tables), fingerprint=folder.name)


def _checksum(path: Path, *, whole: bool) -> int:
    """CRC-32: it tells damage, not intent, at several times the speed of SHA-256."""
    value = 0
    with pa.memory_map(str(path)) as source:
        for part in _iterate_structure(source) if path.suffix == _TABLE and not whole else [source.read_buffer()]:
            value = zlib.crc32(part, value)
    return value


def _iterate_structure(source: pa.MemoryMappedFile) -> Iterator[pa.Buffer]:
    """All that a table consists of but for what binary columns hold (pictures, sequences of features).

    Damage in the rest would end every start with the same error, or make Arrow read where there is nothing.
    """
    messages = pa.ipc.MessageReader.open_stream(source)
    first = messages.read_next_message()
    schema = pa.ipc.read_schema(first)
    yield first.metadata
    for message in messages:
        yield message.metadata
        for column in pa.ipc.read_record_batch(message, schema).columns:
            buffers = column.buffers()
            yield from filter(None, buffers[:-1] if pa.types.is_binary(column.type) else buffers)
