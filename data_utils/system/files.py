"""Writing files whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError

_VOLUME_ENTRIES = ("lost+found", ".snapshot")


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, _encode(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: readers never meet half of it. Parent folders are made.

    A link at `path` is replaced, and what it points to stays as it is. `InputError` where it can't be written.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """`write_bytes` of files that belong together: all or none, see `put_in_place`."""
    temporaries = {path.absolute(): temporary_path(path.absolute()) for path in contents}
    path = Path()
    try:
        for path, content in contents.items():
            temporary = temporaries[path.absolute()]
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
        put_in_place(temporaries)
    except OSError as error:
        unnamed = OSError(error.errno, error.strerror)  # the name is a temporary one
        sentence = describe_refusal(unnamed, path=path.absolute(), need=sum(map(len, contents.values())))
        raise InputError(
            sentence or f"Cannot write {path} ({error.strerror}); choose a folder that may be written to."
        ) from error
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # it was moved, or never made
                temporary.unlink()


def put_in_place(temporaries: Mapping[Path, Path]) -> None:
    """Rename files, given by their targets, so that a kill in between never leaves the first beside older others."""
    first, *others = temporaries
    if others:
        first.unlink(missing_ok=True)
    for target in (*others, first):
        os.replace(temporaries[target], target)


def temporary_path(path: Path) -> Path:
    """Where this process writes a file before it is renamed to `path`: an unforeseeable name, to be opened with x."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the place of `folder` if all in here goes well, and else is gone."""
    partial = temporary_path(folder.absolute())
    try:
        remove_leftovers(partial.parent, [folder.name])
        partial.mkdir(parents=True)
        yield partial
        remove(folder)
        partial.rename(folder)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link and not what it points to; what can't be, stays."""
    try:
        path.unlink()
    except OSError:  # a folder, or nothing there
        shutil.rmtree(path, ignore_errors=True)


def copy_mode(model: Path) -> None:
    """Give every file beside `model` its rights, those of the umask: safetensors lets nobody else read its files."""
    rights = stat.S_IMODE(model.stat().st_mode)
    for path in model.parent.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(rights)


def list_own(folder: Path) -> list[Path]:
    """What lies in a folder, by name, but for what a fresh volume has in it."""
    return sorted(path for path in folder.iterdir() if path.name not in _VOLUME_ENTRIES)


def refuse_folder_links(folder: Path) -> None:
    """`InputError` for a link in the place of a folder below, through which things outside are written or deleted."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.is_file():
                raise InputError(
                    f"{path} is a link to {os.readlink(path)}, outside of what is written here; put the folder itself "
                    "in its place, or choose another --output_dir (which may be a link)."
                )


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what lies at a `temporary_path` of processes that were killed; one that runs on this machine keeps its.

    Args:
        folder: where they lie.
        names: of the files that this program writes there; None: all, of a folder of its own.
    """
    for path in folder.glob(".*.tmp"):
        match = re.fullmatch(r"\.(.+)\.(\d+)\.[0-9a-f]{16}\.tmp", path.name)
        if match is None or (names is not None and match[1] not in names):
            continue
        # Where each container counts its processes anew, this one may have the number of the one that was killed.
        if int(match[2]) == os.getpid() or not _is_running(int(match[2])):
            remove(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # another user's process may not be signalled, but runs
        return not isinstance(error, ProcessLookupError)
    return True


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write comma-separated rows, the header among them, quoted where needed."""
    write_bytes(path, encode_csv(rows))


def encode_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """What `write_csv` writes."""
    return _encode("".join(format_csv(rows)))


def format_csv(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Each row as a line that ends in \\n."""
    lines: list[str] = []
    # With its own end of a line, or a cell with \\r alone wouldn't be quoted.
    csv.writer(SimpleNamespace(write=lines.append)).writerows(rows)
    return (f"{line[:-2]}\n" for line in lines)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")
