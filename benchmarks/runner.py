"""Sides that take turns, so that what else the machine does meets both."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from evaluation.predict.inference import Batch
from training.engine.trainer import SentimentTrainer

# Flags of a training that `watch_loop` ends.
ENDLESS = ("--num_train_epochs", "100000", "--eval_strategy", "no", "--dataloader_drop_last", "true")
OtherSide = Callable[[Sequence[Batch]], object]


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
