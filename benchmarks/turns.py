"""Two sides that take turns, so that what else the machine does meets both."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from benchmarks.results import Result
from training.engine.trainer import SentimentTrainer

# Flags of a training that a `LoopTimer` ends.
ENDLESS = ("--num_train_epochs", "100000", "--eval_strategy", "no")
Batch = dict[str, Tensor]
Replay = Callable[[Sequence[tuple[Batch, Tensor]]], None]


def time_of(function: Callable[[], object]) -> float:
    """Seconds of one call, until the device has done what it was given."""
    synchronize()
    begin = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - begin


def find_device() -> torch.device:
    """The accelerator, or where there is none (also with a torch that is built for one) the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def take_turns(sides: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Call each side in turn, `repeats` times; returns the figures of each side, after one round that isn't counted.

    Each turn begins like the first one of a process: Python collects the garbage of the turns before it beforehand, for
    which it would else stop whichever side runs when it is due (a quarter of a second with torch loaded).
    """

    def take_turn(side: Callable[[], float]) -> float:
        gc.collect()
        return side()

    rounds = [[take_turn(side) for side in sides] for _ in range(1 + repeats)]
    return [list(values) for values in zip(*rounds[1:], strict=True)]


def compare(
    name: str, unit: str, against: str, sides: Sequence[Callable[[], float]], repeats: int, **judged: Any
) -> Result:
    """What we measure and what it is measured against, in turn; `judged` are the result's other values."""
    values, other_values = take_turns(sides, repeats)
    return Result(name, values, unit, against, other_values, **judged)


class LoopTimer(TrainerCallback):
    """Times train.py's own loop over some steps, then another side on the batches of these very steps, in turn.

    The loop's time runs from the end of one step to the end of another: reading, step, logging, everything. After the
    turns that are timed each watch is entered around a turn of the loop, and again around one of the other side.

    Args:
        trainer: is trained here until all turns are taken.
        other: gets the loop's batches with their sums of class weights.
        steps: per turn.
        repeats: turns of each side that are counted, after one that isn't.
        other_steps: per turn of the other side, where it is so slow that it gets the first batches only.
        watches: each gives a context.

    Attributes:
        loop, other: samples per second of each counted turn of train.py's loop, and of the other side.
    """

    def __init__(
        self,
        trainer: SentimentTrainer,
        other: Replay,
        *,
        steps: int,
        repeats: int,
        other_steps: int | None = None,
        watches: Sequence[Callable[[], AbstractContextManager[object]]] = (),
    ) -> None:
        self.loop: list[float] = []
        self.other: list[float] = []
        self._replay, self._steps, self._other_steps = other, steps, other_steps
        self._repeats, self._watches = repeats, watches
        self._batches: list[tuple[Batch, Tensor]] = []
        self._training_step = trainer.training_step
        trainer.training_step = self._note_batch
        trainer.add_callback(self)
        trainer.train()

    def to_result(self, name: str, against: str, **judged: Any) -> Result:
        """Both sides' samples per second; `judged` are the result's other values."""
        return Result(name, self.loop, "samples/s", against, self.other, **judged)

    def _note_batch(self, model: Any, inputs: Batch, num_items_in_batch: Tensor) -> Tensor:
        self._batches.append((inputs, num_items_in_batch))
        return self._training_step(model, inputs, num_items_in_batch)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        self._turns = self._take_turns()
        next(self._turns)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """See the class."""
        if len(self._batches) == self._steps:
            control.should_training_stop = not next(self._turns, False)
        return control

    def _take_turns(self) -> Iterator[bool]:
        """Yields True for each turn of the loop."""
        yield True
        self._time_other()
        for _ in range(self._repeats):
            self._batches.clear()
            begin = time.perf_counter()
            yield True
            synchronize()
            self.loop.append(_count_rows(self._batches) / (time.perf_counter() - begin))
            self.other.append(self._time_other())
        for watch in self._watches:
            self._batches.clear()
            with watch():
                yield True
            with watch():
                self._replay(self._batches)

    def _time_other(self) -> float:
        batches = self._batches[: self._other_steps]
        return _count_rows(batches) / time_of(lambda: self._replay(batches))


def _count_rows(batches: Sequence[tuple[Batch, Tensor]]) -> int:
    return sum(len(batch["labels"]) for batch, _ in batches)
