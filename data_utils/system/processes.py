"""Work that several processes share, how many of them the system lets a program start, and the memory they keep."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from data_utils.system.refusals import AGAIN
from modeling.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
logger = logging.getLogger(__name__)
# Of each process of a pool: itself, and a thread that listens to it. Of the pool: its threads, a process that carries
# what the others give, with threads of its own, and two to spare.
PER_WORKER, PER_POOL = 2, 8
_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 2**31 - 1


def limit_workers(wanted: int) -> int:
    """At most `wanted` processes, as many as a pool may have here; says so where they are fewer.

    It is found out before, as a pool that is refused a process or a thread (ulimit -u counts both) may wait for ever.
    """
    if wanted <= 1:
        return wanted
    threads = _count_threads(PER_WORKER * wanted + PER_POOL) if _has_semaphores() else 0
    possible = max(1, min(wanted, (threads - PER_POOL) // PER_WORKER))
    if possible < wanted:
        logger.warning("The system allows for %d processes in place of %d.", possible, wanted)
    return possible


def run_tasks(function: Callable[[T], R], tasks: Sequence[T], *, workers: int, doing: str) -> Iterator[R]:
    """What a function gives for each task, as they are done, from as many processes, none of which outlives the work.

    Args:
        function: of a module, as it is called in other processes; with one worker it is called in this one.
        tasks: what it is called with.
        workers: of `limit_workers`.
        doing: for the message, as "decoding pictures".

    Raises:
        InputError: a process was killed, as happens when memory runs out.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    others = set(multiprocessing.active_children())
    # A forked process has the libraries already, which take longer to load than most data to prepare.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from (done.result() for done in as_completed([pool.submit(function, task) for task in tasks]))
        except BrokenProcessPool as error:
            raise InputError(
                f"A process was killed while {doing}, most likely because memory ran out; use fewer with "
                f"--preprocessing_num_workers (now {workers}), {AGAIN}."
            ) from error
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:  # the user ends the work, so no process goes on with its task
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _start_worker() -> None:
    """End when the program ends, however it does, and keep the memory of one picture for the next one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program itself ends its processes
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    keep_freed_memory()
    gc.freeze()  # or each collection walks over all that the program had loaded before it started this process


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
