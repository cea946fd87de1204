"""Checkpoint folders: each is there whole or not at all, and says what it was written by."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from safetensors.torch import load_file
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from data_utils.system.files import copy_mode, remove
from data_utils.system.schema import Within, read_json
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.build.parameters import parameter_table

MANIFEST = "checkpoint.json"
# Where a checkpoint is written, and where one is staged for deletion: a kill leaves either name, never half of one.
PARTIAL, DELETED = ".partial", ".deleted-"
CONVERTED = ".universal"  # a checkpoint of DeepSpeed's on its way into another layout
NO_OPTIMIZER = "none"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-[0-9]{{1,18}}")
# Of a longer file only blocks are hashed: a large model's checkpoint has hundreds of gigabytes.
MAX_BYTES_HASHED_WHOLE = 64 * 2**20
NUM_BLOCKS, BLOCK_BYTES = 64, 2**18


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds: files with their bytes and `hash_content`, and what they were written by.

    The optimizer is "none" where its state wasn't saved; old checkpoints name neither digests nor flags.
    """

    world_size: Annotated[int, Within(1, 2**20)]
    global_batch_size: Annotated[int, Within(1, 2**30)]
    optimizer: str
    files: dict[str, int]
    digests: dict[str, str] = field(default_factory=dict)
    update_flags: dict[str, Any] = field(default_factory=dict)


def checkpoint_name(step: int) -> str:
    """The folder's name after `step` updates."""
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"


def step_of(folder: Path) -> int:
    """The updates after which a checkpoint was written, from its name."""
    return int(folder.name.rpartition("-")[2])


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    found = (path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _NAME.fullmatch(path.name))
    return sorted(found, key=step_of)


def publish(written: Path, folder: Path, **settings: Any) -> None:
    """Write the manifest of a finished checkpoint, push all to the disk, and move it into `folder` under its name.

    `settings` are the fields of `Manifest` but for the files.
    """
    files = {str(path.relative_to(written)): path.stat().st_size for path in _files(written)}
    digests = {name: hash_content(written / name) for name in files}
    manifest = Manifest(**settings, files=files, digests=digests)
    (written / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2), encoding="utf-8")
    copy_mode(written / MANIFEST)
    for path in _files(written):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    final = folder / written.name
    if final.exists():  # resumed from an earlier one, and here again
        delete(final)
    written.rename(final)
    remove(folder / PARTIAL)


def estimate_bytes(folder: Path, model: SentimentClassifier) -> int:
    """Size of the next checkpoint: the newest one's in `folder`, else float32 weights and Adam's moments."""
    for checkpoint in reversed(list_checkpoints(folder)):
        return sum(path.stat().st_size for path in _files(checkpoint))
    sizes = parameter_table(model)
    return 4 * sizes["total"] + 8 * sizes["trainable"]


def read_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest, if every file that it names is there in its full length; else None."""
    try:
        manifest = Manifest(**read_json(checkpoint / MANIFEST, Manifest))
        # Its names lead to files that are read whole: not out of the folder, nor to a pipe.
        for name in {*manifest.files, *manifest.digests}:
            path = checkpoint / name
            if "\0" in name or os.path.isabs(name) or ".." in Path(name).parts or not path.is_file():
                return None
            if path.stat().st_size != manifest.files.get(name, path.stat().st_size):
                return None
    except (OSError, InputError):
        return None
    return manifest


def is_intact(checkpoint: Path) -> bool:
    """Whether the files are also those that were written, as far as `hash_content` sees.

    A machine that loses power can leave a file in its full length, with zeros in it.
    """
    manifest = read_manifest(checkpoint)
    try:
        digests = {} if manifest is None else manifest.digests
        return manifest is not None and all(hash_content(checkpoint / name) == digests[name] for name in digests)
    except OSError:  # a disk that can't read it any more
        return False


def hash_content(path: Path) -> str:
    """SHA-256 of a file of up to 64 MiB; of a longer one, of 64 blocks of 256 KiB: head, tail, and evenly between.

    So damage of a few bytes can go unnoticed in a long file, but none that reaches from a block to the next.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        if size <= MAX_BYTES_HASHED_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for number in range(NUM_BLOCKS):
            file.seek(number * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
            digest.update(file.read(BLOCK_BYTES))
        return digest.hexdigest()


def load_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The whole model's float32 weights, on the CPU."""
    return load_file(checkpoint / SAFE_WEIGHTS_NAME)


def rotate(folder: Path, *, limit: int | None, keep: Path | None) -> None:
    """Delete the oldest checkpoints beyond `limit`; never the newest, nor `keep` (the best)."""
    checkpoints = list_checkpoints(folder)
    disposable = [path for path in checkpoints[:-1] if path != keep]
    surplus = max(len(checkpoints) - limit, 0) if limit else 0
    for path in disposable[:surplus]:
        delete(path)


def delete(checkpoint: Path) -> None:
    """Remove a checkpoint; whoever looks meanwhile finds it whole or not at all."""
    staged = checkpoint.with_name(f"{DELETED}{checkpoint.name}")
    remove(staged)
    checkpoint.rename(staged)
    remove(staged)


def is_being_written(folder: Path) -> bool:
    """Whether a checkpoint for `folder` is being written, or was when its job ended."""
    return bool(list_checkpoints(folder / PARTIAL))  # the folder outlives the checkpoint that moved out by a moment


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed job left behind."""
    for leftover in (folder / CONVERTED, folder / PARTIAL, *folder.glob(f"{DELETED}*")):
        remove(leftover)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
