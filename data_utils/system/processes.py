"""How many processes the system lets a program start."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import signal
import sys
import threading
from contextlib import suppress

logger = logging.getLogger(__name__)
# Of each process of a pool: itself, and a thread that listens to it. Of the pool: its threads, a process that carries
# what the others give, with threads of its own, and two to spare.
PER_WORKER, PER_POOL = 2, 8
_PARENT_DEATH_SIGNAL = 1  # of prctl(2)


def limit_workers(wanted: int) -> int:
    """At most `wanted` processes, as many as a pool may have here; says so where they are fewer.

    A pool that is refused a process or a thread on the way may wait for ever, so it is found out before: a limit on
    processes (ulimit -u, a container's pids) counts threads too.
    """
    if wanted <= 1:
        return wanted
    possible = wanted if _has_semaphores() else 1
    if possible > 1:
        possible = min(wanted, (_count_threads(PER_WORKER * wanted + PER_POOL) - PER_POOL) // PER_WORKER)
    if possible < wanted:
        logger.warning("The system allows for %d processes in place of %d.", max(possible, 1), wanted)
    return max(possible, 1)


def end_with_parent() -> None:
    """Let this process end with the one that started it, even if that is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _has_semaphores() -> bool:
    """Whether processes can wait for each other: some systems lack them, or the folder in which they lie."""
    with suppress(ImportError, OSError):
        multiprocessing.get_context("spawn").Lock()
        return True
    return False


def _count_threads(wanted: int) -> int:
    """How many threads can be started beside those that there are, up to `wanted`."""
    end, started = threading.Event(), []
    with suppress(RuntimeError):  # no more
        for _ in range(wanted):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    end.set()
    for thread in started:
        thread.join()
    return len(started)
