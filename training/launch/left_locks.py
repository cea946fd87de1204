"""Locks that killed jobs left where torch compiles extensions: each later job would wait for them without end."""

from __future__ import annotations

import glob
import os
import time
from contextlib import suppress
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from modeling.errors import InputError

# What DeepSpeed may compile for the optimizers and launches of accelerate_configs/.
EXTENSIONS = ("async_io", "cpu_adam", "deepspeed_shm_comm", "fused_adam")
SECONDS_TO_RELEASE = 1.0


def check_no_lock_is_left() -> None:
    """`InputError` for a lock of an extension of DeepSpeed that no process of this machine holds."""
    left = find_left_locks()
    if left:
        time.sleep(SECONDS_TO_RELEASE)  # a holder closes it just before it removes it
        left &= find_left_locks()
    if left:
        paths = " ".join(map(str, sorted(left)))
        raise InputError(
            "DeepSpeed would wait without end for another job to compile: a job that was killed left its lock, as no "
            f"process here holds it. If no other machine or container shares this folder and compiles now: rm {paths}"
        )


def find_left_locks() -> set[Path]:
    """The locks that exist though no process that this one may look at has them open, as who compiles has (torch)."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()).resolve()
    locks = {lock for name in EXTENSIONS for place in ("", "*/") for lock in root.glob(f"{place}{name}/lock")}
    for opened in glob.glob("/proc/[0-9]*/fd/*") if locks else ():
        with suppress(OSError):  # closed meanwhile, or of another user, whose folder is another
            locks.discard(Path(os.readlink(opened)))
    return locks
