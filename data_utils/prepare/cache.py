"""Arrow caches with an explicit key: built once, whole or not at all, then memory-mapped by every process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
_META, _TABLE, _LOCK = "meta.json", ".arrow", ".lock"
_BUILDING = ".building"
_BYTES_PER_READ = 1 << 20


class FileState(NamedTuple):
    """What the cache key knows of a file; a tuple, since it is made for every file of a list.

    Attributes:
        path: resolved path; "" when the file is absent.
        kind: "file", "absent", or "other" (folder, pipe, device, no permission): "other" is never opened.
        size: bytes.
        mtime_ns: time of the last change in nanoseconds.
    """

    path: str = ""
    kind: str = "absent"
    size: int = 0
    mtime_ns: int = 0


ABSENT = FileState()


def file_state(path: str | Path) -> FileState:
    """State of a file, following links; never raises and never opens the file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ABSENT
    except OSError as error:  # no permission, a name too long, a loop of links
        return FileState(path=str(path), kind="other", size=-(error.errno or 0))
    kind = "file" if stat.S_ISREG(status.st_mode) else "other"
    return FileState(str(path), kind, status.st_size, status.st_mtime_ns)


def cache_key(settings: dict[str, Any], rows: list[tuple[str, FileState]]) -> str:
    """Hash of the settings and of every row's guid and file state (path, kind, size, time of change)."""
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, settings], sort_keys=True).encode())
    for guid, state in rows:
        digest.update(json.dumps([guid, *state]).encode())
    return digest.hexdigest()


class _DamagedError(Exception):
    """A finished cache folder that cannot be used."""


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


def _map_tables(folder: Path, names: Iterable[str]) -> Dataset:
    # One data set of all tables, not one per file: describing and hashing each takes longer than mapping its file.
    # The folder's name holds the cache key, so nothing needs to be hashed at all.
    tables = [MemoryMappedTable.from_file(str(folder / name)) for name in sorted(names) if name.endswith(_TABLE)]
    return Dataset(concat_tables(tables), fingerprint=folder.name)


def _checksum(path: Path, *, whole: bool) -> int:
    """CRC-32: it tells damage, not intent, at several times the speed of SHA-256."""
    value = 0
    for block in _iterate_structure(path) if path.suffix == _TABLE and not whole else _iterate_blocks(path):
        value = zlib.crc32(block, value)
    return value


def _iterate_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BYTES_PER_READ):
            yield block


def _iterate_structure(path: Path) -> Iterator[pa.Buffer]:
    """All that a table consists of but for what binary columns hold (pictures, sequences of features).

    Damage in the rest would end every start with the same error, or make Arrow read where there is nothing.
    """
    with pa.memory_map(str(path)) as source:
        messages = pa.ipc.MessageReader.open_stream(source)
        first = messages.read_next_message()
        schema = pa.ipc.read_schema(first)
        yield first.metadata
        for message in messages:
            yield message.metadata
            for column in pa.ipc.read_record_batch(message, schema).columns:
                buffers = column.buffers()
                yield from filter(None, buffers[:-1] if pa.types.is_binary(column.type) else buffers)


def _read_meta(folder: Path) -> dict[str, Any]:
    return parse_json(read_bounded(folder / _META, MAX_DOCUMENT))


def was_built_after(destination: Path, moment: float) -> bool:
    """Whether a cache folder was finished at `moment` (seconds since the epoch) or later."""
    try:
        return _read_meta(destination)["finished"] >= moment
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _beside(destination: Path, ending: str) -> Path:
    return destination.with_name(f"{destination.name}{ending}")


def _remove_leftovers(destination: Path) -> None:
    """Remove what builds left that died: whoever still builds holds the lock of its folder, as the caller does here."""
    for folder in destination.parent.glob(f"*{_BUILDING}*"):
        owner = folder.with_name(folder.name.split(_BUILDING)[0])
        if owner == destination:
            remove(folder)
        else:
            with contextlib.suppress(Timeout), FileLock(_beside(owner, _LOCK)).acquire(timeout=0):
                remove(folder)


@contextlib.contextmanager
def _locked(destination: Path) -> Iterator[None]:
    lock = FileLock(_beside(destination, _LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process prepares the same data; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(destination: Path, build: Callable[[Path], None], *, checked: bool) -> None:
    """Build into a folder beside, note what its files should hold, and move it into place in one step."""
    _remove_leftovers(destination)
    folder = _beside(destination, _BUILDING)
    folder.mkdir()
    try:
        build(folder)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        meta = {
            "rows": len(_map_tables(folder, files)),
            "files": files,
            "checksums": {name: _checksum(folder / name, whole=checked) for name in files},
            "checked": checked,
            "finished": time.time(),
        }
        (folder / _META).write_text(json.dumps(meta), encoding="utf-8")
        remove(destination)  # whoever opens it now takes it for damaged, and waits for the lock
        os.rename(folder, destination)
    finally:
        remove(folder)


def cache_folder(cache_dir: Path, name: str, key: str) -> Path:
    """Where `build_once` keeps the cache `name-key`."""
    return Path(cache_dir).absolute() / f"{name}-{key[:32]}"


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
    asked = time.time()
    destination = cache_folder(cache_dir, name, key)
    if not overwrite:
        with contextlib.suppress(_DamagedError):  # looked at again, and said, under the lock
            return _open(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination):
            if destination.exists() and (not overwrite or was_built_after(destination, asked)):
                try:
                    return _open(destination)
                except _DamagedError as error:
                    logger.warning("the cache %s is damaged (%s); building it again", destination, error)
            _build(destination, build, checked=checked)
            return _open(destination)
    except OSError as error:
        if error.errno in NOT_ON_DISK:  # of the processes that built it
            raise
        room = describe_room(cache_dir) if error.errno in ROOM else ""
        raise InputError(
            f"the cache folder {cache_dir} cannot be written ({error.strerror or error}{room}); "
            "make room there, or choose another folder with --cache_dir."
        ) from error
