"""Memory that a process frees and will need again."""

from __future__ import annotations

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)
# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what large tensors and pictures free, for the next ones of their size (glibc only).

    By default it gives each of them back to the operating system. A training step asks again for all its gradients and
    activations: clearing these pages anew took a tenth to half of a step (`python -m benchmarks kernels`). A process
    that decodes pictures asks again for each of them.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        taken = [library.mallopt(option, _LARGEST) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)]
        if not all(taken):
            logger.info("This C library gives the memory of large tensors back: a step takes longer than need be.")
