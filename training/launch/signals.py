"""SIGTERM and SIGUSR1: how a scheduler asks a job to make room; SIGHUP: its terminal is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.launch.ranks import exit_without_ranks

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# "Temporary failure, try again" of sysexits.h: the job is to be started again with --resume_from_checkpoint latest.
REQUEUE_CODE = os.EX_TEMPFAIL


class Interrupted(Exception):
    """A signal asked the job to stop; it can be resumed."""


class _State:
    main_process = 0
    is_held = False
    is_requested = False


@contextmanager
def listen() -> Iterator[None]:
    """In here a stop signal ends the program with `REQUEUE_CODE`; under nohup a hang-up does not."""
    _State.main_process, _State.is_requested = os.getpid(), False
    # nohup lets a job ignore SIGHUP. torch's launcher doesn't: it passes it on, and kills the ranks 30 s later.
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and "TORCHELASTIC_RUN_ID" not in os.environ
    heard = [number for number in STOP_SIGNALS if number != signal.SIGHUP or not is_ignored]
    earlier = {number: signal.signal(number, _handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def hold() -> Iterator[None]:
    """In here a stop signal is only noted, for `is_stop_requested`, so that a checkpoint can be written first."""
    _State.is_held = True
    try:
        yield
    finally:
        _State.is_held = False


def is_stop_requested() -> bool:
    """Whether this rank got a stop signal."""
    return _State.is_requested


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.main_process:  # a worker process of a library, which inherited this handler
        # Launchers and schedulers send it to all, and a rank still needs its workers for the checkpoint.
        if number != signal.SIGUSR1 and not _State.is_held:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    elif _State.is_held:
        _State.is_requested = True
    else:
        exit_without_ranks(REQUEUE_CODE)
