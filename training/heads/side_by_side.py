"""Trainings in threads of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def train_side_by_side(
    trials: Sequence[T], train: Callable[[T, Event], Sequence[Any]], finish: Callable[..., None]
) -> None:
    """Train each in a thread that computes alone, so that its figures don't depend on how many there are.

    `train` raises anything once it is told to stop; `finish` is called in this thread.
    """
    num_threads, stop = torch.get_num_threads(), Event()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done in as_completed([pool.submit(train, trial, stop) for trial in trials]):
            finish(*done.result())
    finally:
        stop.set()  # after an error or a signal nobody waits for trials to end
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)
