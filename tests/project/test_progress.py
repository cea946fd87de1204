"""What is shown of work that goes on: a bar on a terminal; whole, plain lines everywhere else."""

import io
import re

import pytest
from transformers import TrainerControl, TrainerState

from data_utils.console import progress as module
from data_utils.console.progress import progress
from training.engine.callbacks import LossProgressCallback


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def screen(monkeypatch):
    """Factory: stderr, which is a terminal or isn't."""

    def make(is_terminal):
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return make


def test_file_gets_a_line_every_few_seconds_and_one_at_the_end(screen, clock):
    stream = screen(False)
    for _ in progress(range(2_000), description="Decoding", unit="rows"):
        clock.now += 0.01
    assert stream.getvalue().splitlines() == [
        "Decoding: 500 of 2,000 rows, 100.0 rows/s, 00:15 left",
        "Decoding: 1,000 of 2,000 rows, 100.0 rows/s, 00:10 left",
        "Decoding: 1,500 of 2,000 rows, 100.0 rows/s, 00:05 left",
        "Decoding: 2,000 of 2,000 rows, 100.0 rows/s, 00:20 in all",
    ]


def test_lines_become_rarer_but_never_stop(screen, clock):
    stream = screen(False)
    with progress(total=100_000, description="x", unit="steps") as shown:
        for _ in range(100_000):
            clock.now += 1
            shown.update()
    assert 1_500 < len(stream.getvalue().splitlines()) < 2_000  # one a minute at last


@pytest.mark.parametrize(("stays", "lines"), [(True, ["x: 3 of 3 rows, 3.0 rows/s, 00:01 in all"]), (False, [])])
def test_quick_work_is_told_at_its_end_where_it_stays(screen, clock, stays, lines):
    stream = screen(False)
    with progress(total=3, description="x", unit="rows", stays=stays) as shown:
        clock.now += 1
        shown.update(3)
    assert stream.getvalue().splitlines() == lines


def test_unknown_total_slow_work_and_work_done_before(screen, clock):
    stream = screen(False)
    shown = progress(iter(()), description="stream", unit="batches")
    clock.now += 10
    shown.update(4)
    resumed = progress(total=20, done=10, description="training", unit="steps")
    clock.now += 10
    resumed.update(5)
    assert stream.getvalue().splitlines() == [
        "stream: 4 batches, 2.5 s each, 00:10 in all",
        "training: 15 of 20 steps, 2.0 s each, 00:10 left",
    ]


class Uncounted:
    """Like the loader of a stream whose rows nobody counted."""

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        raise TypeError("object has no len()")


def test_stream_without_a_length_is_gone_through(screen, clock):
    stream = screen(False)
    assert list(progress(Uncounted(), description="x", unit="rows")) == ["a", "b"]
    assert stream.getvalue().startswith("x: 2 rows")


def test_work_that_fails_has_no_end(screen, clock):
    stream = screen(False)
    items = progress(map(int, ["1", "2", "three"]), description="x", unit="rows", total=3)
    with pytest.raises(ValueError, match="three"):
        list(items)
    assert stream.getvalue() == ""


def test_terminal_gets_a_bar_and_other_ranks_nothing(screen):
    stream = screen(True)
    assert list(progress(range(3), description="x", unit="rows")) == [0, 1, 2]
    assert "\r" in stream.getvalue()
    stream = screen(False)
    assert list(progress(range(3), description="x", unit="rows", is_shown=False)) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_training_tells_step_loss_rate_and_time_left(screen, clock, capsys):
    stream, state = screen(False), TrainerState(max_steps=30, global_step=10)
    callback, rest = LossProgressCallback(), (TrainerControl(),)
    callback.on_train_begin(None, state, *rest)
    for _ in range(20):
        clock.now += 1
        state.global_step += 1
        callback.on_step_end(None, state, *rest)
        callback.on_log(None, state, *rest, logs={"loss": 30.0 - state.global_step, "learning_rate": 1e-3})
    callback.on_log(None, state, *rest, logs={"epoch": 2.0, "eval_loss": 0.5, "eval_accuracy": 0.75})
    callback.on_train_end(None, state, *rest)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training: 15 of 30 steps, loss 16, lr 0.001, 1.0 steps/s, 00:15 left"
    assert lines[-1] == "training: 30 of 30 steps, loss 0, lr 0.001, 1.0 steps/s, 00:20 in all"
    assert len(lines) == 4
    assert capsys.readouterr().out == "epoch 2.00  validation: loss 0.5000  accuracy 0.7500\n"


def test_plain_training_has_no_carriage_return(run_train, capfd):
    run_train("--logging_steps", "1", "--max_steps", "2")
    error = capfd.readouterr().err
    assert "\r" not in error
    assert re.search(r"^training: 2 of 2 steps, loss [\d.]+, lr [\d.e-]+, grad [\d.]+, .* in all$", error, re.M)
    assert re.search(r"^Decoding pictures: \d+ of \d+ rows, ", error, re.M)
