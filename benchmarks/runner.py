"""Sides that take turns, so that what else the machine does meets both; parts, each in a process of its own."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Timer
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.report import Result
from evaluation.predict.inference import Batch
from training.engine.trainer import SentimentTrainer
from training.launch.console import set_up_logging

logger = logging.getLogger(__name__)
FOREVER = 1e6
SECONDS_TO_END = 5.0
# Flags of a training that `watch_loop` ends.
ENDLESS = ("--num_train_epochs", "100000", "--eval_strategy", "no", "--dataloader_drop_last", "true")
Measure = Callable[[Any], Iterable[Result]]
OtherSide = Callable[[Sequence[Batch]], object]


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


def find_device() -> torch.device:
    """The accelerator, or where there is none (also with a torch that is built for one) the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


@contextmanager
def stopwatch(seconds: list[float]) -> Iterator[None]:
    """Add to `seconds` how long the context takes, until the device has done what it was given."""
    synchronize()
    begin = time.perf_counter()
    yield
    synchronize()
    seconds.append(time.perf_counter() - begin)


def time_of(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    seconds: list[float] = []
    with stopwatch(seconds):
        function()
    return seconds[0]


def take_turns(sides: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Call each side in turn, `repeats` times; returns the figures of each side, after one round that isn't counted."""
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(1 + repeats):
        for side, values in zip(sides, found, strict=True):
            gc.collect()  # which would else stop whichever side runs when it is due
            values.append(side())
    return [values[1:] for values in found]


def watch_loop(
    trainer: SentimentTrainer,
    other: OtherSide,
    watch: Callable[[], AbstractContextManager[None]],
    *,
    steps: int,
    turns: int,
) -> None:
    """Enter `watch` around some steps of train.py's own loop, and around `other` on their batches, in turn.

    A turn of the loop goes from one batch that is read to that of `steps` updates later: reading, logging, everything.
    """
    make_step, batches = trainer.training_step, list[Batch]()

    def take() -> Iterator[bool]:
        for _ in range(turns):
            batches.clear()
            with watch():
                yield from [True] * steps
            with watch():
                other(batches)

    def note_batch(model: nn.Module, batch: Batch, weight_sum: Tensor) -> Tensor:
        trainer.control.should_training_stop = not next(taken, False)
        batches.append(batch)
        return make_step(model, batch, weight_sum)

    taken = take()
    with patch.object(trainer, "training_step", note_batch):
        trainer.train()


def time_loop(
    trainer: SentimentTrainer, other: OtherSide, *, steps: int, repeats: int, other_steps: int | None = None
) -> list[list[float]]:
    """Samples per second of train.py's loop and of `other`, which gets the first `other_steps` of its batches."""
    seconds: list[float] = []
    few, watch = range(steps)[:other_steps], partial(stopwatch, seconds)
    watch_loop(trainer, lambda batches: other(batches[: len(few)]), watch, steps=steps, turns=1 + repeats)
    rows = trainer.args.train_batch_size
    return [[rows * number / each for each in seconds[2 + side :: 2]] for side, number in enumerate((steps, len(few)))]
