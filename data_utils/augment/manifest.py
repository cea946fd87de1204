"""augmentation.json: what was put beside the data, written before anything is, so that all of it can be taken away."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from data_utils.augment.arguments import MANIFEST
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


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(data_dir: Path) -> ManifestFile | None:
    """The manifest of a data folder, None if it has none; `InputError` if this program didn't write it."""
    path = data_dir / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        manifest: ManifestFile = read_json(path, ManifestFile, remedy="put the file back that data_utils.augment wrote")
    except FileNotFoundError as error:  # a link that leads nowhere
        raise InputError(f"{path} cannot be read ({error.strerror}); take it away.") from error
    names = [manifest["output"]["name"], *(name for copy in manifest["copies"] for name in copy["files"])]
    # Names lead to files that will be deleted: they must not lead out of the folder.
    if manifest["version"] != VERSION or not all(map(is_valid_guid, names)):
        raise InputError(f"{path} is of another version of this program, or damaged; use the version that wrote it.")
    return manifest


def open_staging(data_dir: Path) -> Path:
    """An empty folder for files in the making, on the disk of the data.

    Raises:
        InputError: there are copies already, or the beginnings of them, or the folder can't be made.
    """
    if (manifest := read_manifest(data_dir)) is not None:
        state = "copies already" if manifest["complete"] else "copies of a run that was interrupted"
        raise InputError(
            f"{data_dir} has {state} (see {MANIFEST}); take them away first: "
            f"python -m data_utils.augment --data_dir {data_dir} --undo"
        )
    staging = pair_folder(data_dir) / _STAGING
    try:
        remove(staging)  # of a run that was killed before it added anything
        staging.mkdir()
    except OSError as error:
        raise InputError(
            f"Cannot write into {staging.parent} ({error.strerror}); copies are put beside the data."
        ) from error
    return staging


def publish(data_dir: Path, manifest: Mapping[str, Any], source: bytes) -> None:
    """Write the manifest, then move the staged files beside the data, then write the list; all or nothing.

    Raises:
        InputError: the disk is full, or a file has appeared meanwhile; what was added is taken away again.
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
        reason = describe_refusal(error, path=data_dir) if isinstance(error, OSError) else None
        raise InputError(f"Cannot add the copies to {data_dir}, and nothing was added. {reason or error}") from error


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
    files, names = {}, [MANIFEST]
    if manifest is not None:
        output = manifest["output"]
        files = {folder / name: sha256 for copy in manifest["copies"] for name, sha256 in copy["files"].items()}
        files[data_dir / output["name"]] = output["sha256"]
        names.append(output["name"])
    elif not (folder / _STAGING).is_dir():
        raise InputError(f"{data_dir} has no {MANIFEST}, so there is nothing to undo; check --data_dir.")
    found = [path for path in files if os.path.lexists(path)]
    try:
        kept = [path.name for path in found if not path.is_file() or hash_file(path) != files[path]]
        for path in found:
            if path.name not in kept:
                path.unlink()
        remove_leftovers(data_dir, names)
        remove(folder / _STAGING)
        # Last of all, so that an undo that was interrupted can be repeated.
        (data_dir / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot delete {error.filename} ({error.strerror}); mend that and undo again.") from error
    return len(found) - len(kept), kept
