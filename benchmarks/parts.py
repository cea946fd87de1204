"""Parts, each in a process of its own, which begins with what its own module loads."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Timer
from typing import Any, NamedTuple

from benchmarks.report import Result
from training.launch.console import set_up_logging

logger = logging.getLogger(__name__)
FOREVER = 1e6
SECONDS_TO_END = 5.0
Measure = Callable[[Any], Iterable[Result]]


class Part(NamedTuple):
    """A function from the setting to figures, each of which is kept as soon as it is there, and its most seconds."""

    measure: Measure
    seconds: float = FOREVER


def run_parts(parts: Mapping[str, Part], setting: object, *, seconds: float = FOREVER) -> Iterator[tuple[str, Result]]:
    """Yield (part, figure) as soon as each figure is there.

    What fails, or is cut by its own limit or that of all, is yielded too: as a figure of the part's name without
    values, whose note says so.
    """
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        # All load their modules at once, before the first one measures: a minute less on a GPU that is lent for five.
        workers = [(name, *stack.enter_context(start(name, part.measure))) for name, part in parts.items()]
        for _, connection, _ in workers:
            connection.poll(None)
        for name, connection, process in workers:
            begin = time.monotonic()
            limit = Timer(min(parts[name].seconds, end - begin), _end, [process])
            limit.start()
            try:
                connection.recv()
                connection.send(setting)
                while (result := connection.recv()) is not None:
                    yield name, result
            except (EOFError, OSError):
                note = f"cut, or ended by the machine, after {time.monotonic() - begin:.0f} s"
                yield name, Result(name, [], "", note=note)
            finally:
                limit.cancel()
            process.join(SECONDS_TO_END)
            _end(process)
            logger.info("%s: %.0f s.", name, time.monotonic() - begin)


@contextmanager
def start(name: str, measure: Measure) -> Iterator[tuple[Connection, BaseProcess]]:
    """A process that loads a part's modules and waits for the setting; it ends with the context, and all it started."""
    context = multiprocessing.get_context("spawn")  # a process that was forked from one with CUDA can't use CUDA
    connection, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, name, measure))
    process.start()
    theirs.close()
    try:
        yield connection, process
    finally:
        _end(process)


def _end(process: BaseProcess) -> None:
    with suppress(ProcessLookupError):  # it may not have come so far as to lead its group
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()


def serve(connection: Connection, name: str, measure: Measure) -> None:
    """What a part's process does."""
    os.setpgrp()
    set_up_logging()
    connection.send("loaded")
    try:
        for result in measure(connection.recv()):
            connection.send(result)
    except Exception as error:
        logger.exception("%s failed.", name)
        lines = str(error).strip().splitlines()
        told = " ... ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))  # CUDA's errors begin with the cause, others end
        connection.send(Result(name, [], "", note=f"failed: {type(error).__name__}: {told}".rstrip(".: ")))
    connection.send(None)
