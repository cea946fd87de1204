"""augmentation.json: what was put beside the data, written before anything is, so that all of it can be taken away."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from data_utils.augment.arguments import MANIFEST
from data_utils.augment.copies import hash_file
from data_utils.prepare.pair_files import pair_folder
from data_utils.sources.records import is_valid_guid
from data_utils.system.files import remove, remove_leftovers, write_bytes, write_text
from data_utils.system.refusals import describe_refusal
from data_utils.system.schema import read_json
from modeling.errors import InputError

VERSION = 1
_STAGING = ".augmentation"


class OutputEntry(TypedDict):
    """The list that was written."""

    name: str
    sha256: str


class CopyEntry(TypedDict):
    """One copy of a pair: SHA-256 of its files, by name."""

    files: dict[str, str]


class ManifestFile(TypedDict):
    """augmentation.json, as far as it is read again."""

    version: int
    complete: bool
    output: OutputEntry
    copies: list[CopyEntry]


def read_manifest(data_dir: Path) -> dict[str, Any] | None:
    """The manifest of a data folder, None if it has none.

    Raises:
        InputError: it was not written by this version of the program.
    """
    path = data_dir / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        manifest = read_json(path, ManifestFile, remedy="put the file back that data_utils.augment wrote")
    except FileNotFoundError as error:  # a link that leads nowhere
        raise InputError(f"{path} cannot be read ({error.strerror}); take it away.") from error
    names = [manifest["output"]["name"], *(name for copy in manifest["copies"] for name in copy["files"])]
    # Names lead to files that will be deleted: they must not lead out of the folder.
    if manifest["version"] != VERSION or not all(map(is_valid_guid, names)):
        raise InputError(f"{path} is of another version of this program, or damaged; use the version that wrote it.")
    return manifest


def refuse_second_run(data_dir: Path) -> None:
    """`InputError` if the folder has copies, or the beginnings of them."""
    manifest = read_manifest(data_dir)
    if manifest is not None:
        state = "copies already" if manifest["complete"] else "copies of a run that was interrupted"
        raise InputError(
            f"{data_dir} has {state} (see {MANIFEST}); take them away first: "
            f"python -m data_utils.augment --data_dir {data_dir} --undo"
        )


def open_staging(folder: Path) -> Path:
    """An empty folder for files in the making, on the disk of the data.

    Raises:
        InputError: it can't be made.
    """
    staging = folder / _STAGING
    try:
        drop_staging(folder)  # of a run that was killed before it added anything
        staging.mkdir()
    except OSError as error:
        raise InputError(f"Cannot write into {folder} ({error.strerror}); copies are put beside the data.") from error
    return staging


def drop_staging(folder: Path) -> None:
    """Remove the files in the making."""
    remove(folder / _STAGING)


def publish(data_dir: Path, manifest: Mapping[str, Any], source: bytes) -> None:
    """Add the staged files and the list: first the manifest as a plan, at last as complete.

    Args:
        data_dir: the data folder.
        manifest: with the names and hashes of all files.
        source: bytes of the list.

    Raises:
        InputError: a file can't be written, or has come to be meanwhile; what was added is taken away again.
    """
    folder, output = pair_folder(data_dir), data_dir / manifest["output"]["name"]
    try:
        _write_manifest(data_dir, {**manifest, "complete": False})
        for name in (name for copy in manifest["copies"] for name in copy["files"]):
            _refuse_existing(folder / name)
            os.replace(folder / _STAGING / name, folder / name)
        _refuse_existing(output)
        write_bytes(output, source)
        (folder / _STAGING).rmdir()
        _write_manifest(data_dir, {**manifest, "complete": True})
    except (OSError, InputError) as error:
        undo(data_dir)
        reason = str(error)
        if isinstance(error, OSError):
            reason = describe_refusal(error, path=data_dir) or f"{error.strerror}: {error.filename}"
        raise InputError(f"Cannot add the copies to {data_dir}, and nothing was added. {reason}") from error


def _write_manifest(data_dir: Path, manifest: Mapping[str, Any]) -> None:
    write_text(data_dir / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(17, "it exists already", str(path))


def undo(data_dir: Path) -> tuple[int, list[str]]:
    """Delete what the manifest lists, the list and the manifest; nothing else, and no file that was changed since.

    Returns:
        How many files were deleted, and the names of those that were kept.

    Raises:
        InputError: there is nothing to undo, or a file can't be deleted.
    """
    folder, manifest = pair_folder(data_dir), read_manifest(data_dir)
    if manifest is None and not (folder / _STAGING).is_dir():
        raise InputError(f"{data_dir} has no {MANIFEST}, so there is nothing to undo; check --data_dir.")
    removed, kept = 0, []
    try:
        for path, sha256 in _list_files(data_dir, manifest):
            if path.is_file() and hash_file(path) == sha256:
                path.unlink()
                removed += 1
            elif os.path.lexists(path):
                kept.append(path.name)
        remove_leftovers(data_dir)
        drop_staging(folder)
        # Last of all, so that an undo that was interrupted can be repeated.
        (data_dir / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot delete {error.filename} ({error.strerror}); mend that and undo again.") from error
    return removed, kept


def _list_files(data_dir: Path, manifest: Mapping[str, Any] | None) -> Iterator[tuple[Path, str]]:
    """Each file that the manifest lists, and the SHA-256 it had."""
    if manifest is not None:
        for copy in manifest["copies"]:
            for name, sha256 in copy["files"].items():
                yield pair_folder(data_dir) / name, sha256
        yield data_dir / manifest["output"]["name"], manifest["output"]["sha256"]
