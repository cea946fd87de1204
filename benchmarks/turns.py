"""Two sides that take turns, so that what else the machine does meets both."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from training.trainer import SentimentTrainer

Batch = dict[str, Tensor]
Replay = Callable[[Sequence[tuple[Batch, Tensor]]], None]


def time_of(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def take_turns(sides: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Call each side in turn, `repeats` times; returns the figures of each side, after one round that isn't counted.

    Each turn begins like the first one of a process: Python collects the garbage of the turns before it beforehand, for
    which it would else stop whichever side runs when it is due (a quarter of a second with torch loaded).
    """

    def take_turn(side: Callable[[], float]) -> float:
        gc.collect()
        return side()

    for side in sides:
        take_turn(side)
    rounds = [[take_turn(side) for side in sides] for _ in range(repeats)]
    return [list(values) for values in zip(*rounds, strict=True)]


class LoopTimer(TrainerCallback):
    """Times train.py's own loop over some steps, then another side on the batches of these very steps, in turn.

    The loop's time runs from the end of one step to the end of another: reading, step, logging, everything.

    Args:
        trainer: before its `train`; the run ends when all turns are taken.
        other: gets the loop's batches with their sums of class weights.
        steps: per turn.
        repeats: turns of each side that are counted, after one that isn't.

    Attributes:
        loop, other: samples per second of each counted turn of train.py's loop, and of the other side.
    """

    def __init__(self, trainer: SentimentTrainer, other: Replay, *, steps: int, repeats: int) -> None:
        self.loop: list[float] = []
        self.other: list[float] = []
        self._other, self._steps, self._repeats = other, steps, repeats
        self._batches: list[tuple[Batch, Tensor]] = []
        self._begin: float | None = None
        self._training_step = trainer.training_step
        trainer.training_step = self._note_batch
        trainer.add_callback(self)

    def _note_batch(self, model: Any, inputs: Batch, num_items_in_batch: Tensor) -> Tensor:
        self._batches.append((inputs, num_items_in_batch))
        return self._training_step(model, inputs, num_items_in_batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """See the class."""
        now, batches = time.perf_counter(), list(self._batches)
        if len(batches) < self._steps:
            return control
        rows = sum(len(batch["labels"]) for batch, _ in batches)
        other_seconds = time_of(lambda: self._other(batches))
        if self._begin is not None:
            self.loop.append(rows / (now - self._begin))
            self.other.append(rows / other_seconds)
        control.should_training_stop = len(self.loop) == self._repeats
        self._batches.clear()
        self._begin = time.perf_counter()
        return control
