"""Measurements one after another, each in a process of its own, which is ended when its time is up."""

from __future__ import annotations

import importlib
import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.results import Result
from training.launch.console import set_up_logging

logger = logging.getLogger(__name__)
# What is begun with less time left ends before it has loaded its model.
LEAST_SECONDS = 10.0
SECONDS_TO_END = 5.0
# A measurement's function as module:name, and the seconds that it may take at most.
Target = tuple[str, float]


def run_all(
    targets: Mapping[str, Target], setting: Any, *, end: float = math.inf, ahead: bool = False
) -> Iterator[tuple[str, Result]]:
    """Yield (measurement, figure) as soon as each figure is there.

    What fails, is cut or isn't begun any more is yielded too, as a figure of the measurement's name without values,
    whose note says so.

    Args:
        targets: by the measurements' names, in their order.
        setting: what each function gets.
        end: of all of them, on the clock of time.monotonic.
        ahead: load the next one's modules while one runs, where there are cores enough for both.
    """
    names = list(targets)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, following in zip(names, [*names[1:], None], strict=True):
            if end - time.monotonic() < LEAST_SECONDS:
                yield name, Result(name, [], "", note="left out, as the time was over")
                continue
            for each in (name, following if ahead else None):
                if each is not None and each not in workers:
                    workers[each] = stack.enter_context(Worker(each, targets[each][0], setting))
            begin = time.monotonic()
            for result in workers[name].run(targets[name][1], end):
                yield name, result
            workers[name].end()
            logger.info("%s: %.0f s.", name, time.monotonic() - begin)


class Worker:
    """A process that loads a measurement's modules and then waits to be told to measure; a context that ends it."""

    def __init__(self, name: str, function: str, setting: Any) -> None:
        self._name = name
        context = multiprocessing.get_context("spawn")  # a process that was forked from one with CUDA can't use CUDA
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, function, setting))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def run(self, seconds: float, end: float) -> Iterator[Result]:
        """The figures as they come, for so many seconds once the modules are loaded, and up to `end` at most."""
        begin = time.monotonic()
        try:
            if self._wait(end):
                self._connection.recv()
                self._connection.send("measure")
                end = min(end, time.monotonic() + seconds)
            while self._wait(end):
                if (result := self._connection.recv()) is None:
                    return
                yield result
        except (EOFError, OSError):
            self._process.join()
            yield Result(self._name, [], "", note=f"failed: its process ended with {self._process.exitcode}")
            return
        yield Result(self._name, [], "", note=f"cut after {time.monotonic() - begin:.0f} s")

    def _wait(self, end: float) -> bool:
        """Whether there is something to receive, at the latest at `end`; an ended process says so, too."""
        return self._connection.poll(None if end == math.inf else max(0.0, end - time.monotonic()))

    def end(self) -> None:
        """End the process with all that it started, by force if need be."""
        for number, patience in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, None)):
            if self._process.is_alive():
                try:
                    os.killpg(self._process.pid, number)
                except ProcessLookupError:  # it has not come so far as to lead its group
                    os.kill(self._process.pid, number)
                self._process.join(patience)


def serve(connection: Connection, name: str, function: str, setting: Any) -> None:
    """What a worker's process does."""
    os.setpgrp()
    set_up_logging()
    try:
        module, _, attribute = function.partition(":")
        measure = getattr(importlib.import_module(module), attribute)
        connection.send("loaded")
        connection.recv()
        for result in measure(setting):
            connection.send(result)
    except Exception as error:
        logger.exception("%s failed.", name)
        lines = str(error).strip().splitlines()
        told = " ... ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))  # CUDA's errors begin with the cause, others end
        connection.send(Result(name, [], "", note=f"failed: {type(error).__name__}: {told}".rstrip(".: ")))
    connection.send(None)
