"""A terminal that is gone: SIGHUP stops a job with a checkpoint or, under nohup, not at all; nobody has to read on."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Callable

import pytest
from tqdm import tqdm

from data_utils.console.screen import show, start_logging
from training.launch import signals


def exit_code(child: Callable[[], None]) -> int:
    """Of a copy of this process that does `child` alone."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("is_ignored", "is_rank", "expected"), [(False, False, True), (True, False, False), (True, True, True)]
)
def test_hang_up_asks_for_a_checkpoint_unless_nohup_ignores_it(is_ignored, is_rank, expected, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if is_rank:  # its launcher would kill it soon after
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:
        with signals.listen(), signals.hold():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.is_stop_requested() is expected
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("kind", ["buffered", "unbuffered", "closed"])
def test_screen_without_a_reader_ends_nothing(kind, tmp_path):
    def talk() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        for number in (1, 2):
            os.close(number) if kind == "closed" else os.dup2(writer, number)
            raw = None if kind == "closed" else open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115
            stream = raw and io.TextIOWrapper(raw if kind == "unbuffered" else io.BufferedWriter(raw))
            setattr(sys, {1: "stdout", 2: "stderr"}[number], stream)
        logging.root.handlers.clear()
        start_logging()
        opened = (tmp_path / "file").open("w")  # on a closed stream's number it would get what is said below
        for _ in range(100):
            show("a line of output " * 100)
            logging.warning("a warning")
            tqdm.write("beside the bar", file=sys.stderr)
        os.write(2, b"from a library") if kind == "closed" else None
        sys.stdout.flush()
        opened.close()

    assert exit_code(talk) == 0
    assert (tmp_path / "file").read_text() == ""
