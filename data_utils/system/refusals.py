"""What the machine refuses, room on a disk, rights, processes, told in one sentence."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_utils.console.screen import show_error
from modeling.errors import InputError

AGAIN = "then start the same command again"
DEVICE_MEMORY = -1  # of a GPU, for which the system has no number
SMALLER = (
    "take a smaller --per_device_train_batch_size with as many times the --gradient_accumulation_steps (the same "
    "updates), --activation_checkpointing, --bf16, or accelerate_configs/zero3_offload.yaml; for an evaluation, a "
    "smaller --per_device_eval_batch_size"
)
# What to do about each, behind the system's own words.
REMEDIES = {
    errno.ENOSPC: f"make room there, {AGAIN}",
    errno.EDQUOT: f"make room within your quota there, {AGAIN}",
    errno.EFBIG: f"lift the limit on the size of a file (ulimit -f), {AGAIN}",
    errno.EROFS: "name a folder that may be written to",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "ask its owner for the right, or name another path"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), f"look after the disk or its connection, {AGAIN}"),
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"close other programs' files, {AGAIN}",
    errno.EBUSY: "name a folder that no other program holds",
    errno.ELOOP: "replace that link by a plain file or folder",
    errno.EAGAIN: "use fewer processes (--preprocessing_num_workers 1, --dataloader_num_workers 0, OMP_NUM_THREADS=1), "
    "or raise the limit on them (ulimit -u)",
    errno.ENOBUFS: "give the container more shared memory (docker run --shm-size), or take --dataloader_num_workers 0",
    errno.ENOMEM: f"use fewer processes, or a machine of more memory; {SMALLER}",
    DEVICE_MEMORY: SMALLER,
}
# Room that is missing, whatever was to be written.
ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ON_DISK = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, DEVICE_MEMORY)
# Libraries that write by themselves tell the number or the words, or, as torch's archives, neither.
_NUMBER = re.compile(r"\(os error (\d+)\)")
_PHRASES = {
    errno.ENOSPC: r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+",
    errno.EAGAIN: r"can't start new thread",
    errno.ENOBUFS: r"out of shared memory|unable to (open|mmap|allocate) shared memory",
    errno.ENOMEM: r"DefaultCPUAllocator: can't allocate memory",
    DEVICE_MEMORY: r"(CUDA|HIP|XPU) (error: )?out of memory|CU\w+_STATUS_ALLOC_FAILED",
}
_TOLD = (*ROOM, errno.EROFS, errno.EIO, errno.EMFILE, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_WORDS = [(re.compile(os.strerror(number)), number) for number in _TOLD]
_WORDS += [(re.compile(phrase), number) for number, phrase in _PHRASES.items()]


class RankError(Exception):
    """What one rank alone may meet while the program runs, and then says by itself; the exit status is 1."""


class MachineError(RankError):
    """What the machine refused in the middle of the work: one sentence, and an exit status of 1."""


def find_refusal(error: BaseException) -> tuple[int, str | None] | None:
    """The number in `REMEDIES` of what the machine refused, and the path if it was told; None for another error."""
    chain = [error]
    # Another kind's error that came while one was handled is a fault of its own.
    while cause := chain[-1].__cause__ or (chain[-1].__context__ if _is_of_library(chain[-1]) else None):
        if cause in chain:
            break
        chain.append(cause)
    for each in chain:
        if isinstance(each, OSError) and each.errno in REMEDIES:
            return each.errno, each.filename if isinstance(each.filename, str) else None
    return next(((number, None) for each in chain if (number := _read_number(each)) is not None), None)


def _is_of_library(error: BaseException) -> bool:
    return isinstance(error, OSError | RuntimeError) or type(error).__module__.startswith("safetensors")


def _read_number(error: BaseException) -> int | None:
    """Of a library's own kind of error, by its words."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if not _is_of_library(error):
        return None
    text = str(error)
    if (found := _NUMBER.search(text)) and int(found[1]) in REMEDIES:
        return int(found[1])
    return next((number for words, number in _WORDS if words.search(text)), None)


def describe_refusal(
    error: BaseException, *, path: Path | None = None, need: int | None = None, again: str = AGAIN
) -> str | None:
    """The sentence about what the machine refused; None for an error of another kind.

    `path` is what was to be written, where the error doesn't tell; `need` its bytes; `again` how to go on afterwards.
    """
    found = find_refusal(error)
    if found is None:
        return None
    number, told = found
    remedy = REMEDIES[number].replace(AGAIN, again)
    place = told or path
    if place is None or number in NOT_ON_DISK:
        reason = "The GPU's memory is full" if number == DEVICE_MEMORY else os.strerror(number)
        return f"The system refuses what is needed ({reason}); {remedy}."
    if number not in ROOM:
        return f"Cannot use {place} ({os.strerror(number)}); {remedy}."
    return f"Cannot write {place} ({os.strerror(number)}{describe_room(Path(place), need)}); {remedy}."


def describe_room(path: Path, need: int | None = None) -> str:
    """Bytes that are free where `path` is to lie, and needed; goes on a sentence."""
    folder = path
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = f"{shutil.disk_usage(folder).free:,} bytes are free"
    return f"; {free}" if need is None else f"; about {need:,} bytes are needed, {free}"


@contextmanager
def tell_refusals(path: Path, *, need: int | None = None, again: str = AGAIN) -> Iterator[None]:
    """In here what the machine refuses becomes a `MachineError` that names `path`, see `describe_refusal`."""
    try:
        yield
    except (InputError, RankError):
        raise
    except Exception as error:
        sentence = describe_refusal(error, path=path, need=need, again=again)
        if sentence is None:
            raise
        raise MachineError(sentence) from error


@contextmanager
def refuse_long_names() -> Iterator[None]:
    """Make an `InputError` of what the system says, at whatever call, of a name that is too long for it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = str(error.filename)
        raise InputError(
            f"Got a path of {len(name):,} characters, {name[:60]}..., in which a name is too long for a file; give "
            "a shorter one."
        ) from error


def refuse_unreadable(folder: Path) -> None:
    """`InputError` for a folder, or a file in it, that this account may not read: it isn't damaged."""
    for path in (folder, *sorted(folder.iterdir())) if os.access(folder, os.R_OK | os.X_OK) else (folder,):
        if path.exists() and not os.access(path, os.R_OK):
            raise InputError(f"{path} may not be read by this account; ask its owner for the right (chmod a+rX).")


def report_error(error: Exception) -> int:
    """Print one sentence about a mistake of the user's or a refusal of the machine, and return the exit code.

    An error of another kind is raised.
    """
    try:
        with refuse_long_names():
            raise error
    except (InputError, MachineError) as told:
        show_error(told)
        return 2 if isinstance(told, InputError) else 1
    except Exception:
        if (sentence := describe_refusal(error)) is None:
            raise
        show_error(sentence)
        return 1
