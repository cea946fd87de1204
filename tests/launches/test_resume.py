"""A killed job goes on as if nothing had happened: the same losses and weights, bit for bit."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time

import pytest
import torch
from launching import (
    descendants,
    kill,
    launch,
    launcher,
    list_steps,
    load_weights,
    logged_losses,
    needs_compiler,
    start,
    train_flags,
    wait_for,
)

from data_utils.sample import main as draw_sample
from training.checkpoint.checkpoints import MANIFEST, PARTIAL, is_being_written, list_checkpoints
from training.launch.signals import REQUEUE_CODE

# Dropout is on: the random numbers have to go on too. 12 updates an epoch of 2 x 4 rows: checkpoints mid-epoch.
DROPOUT = {"attention_dropout": 0.1}
RHYTHM = ["--eval_strategy", "steps", "--eval_steps", "4", "--save_strategy", "steps", "--save_steps", "4"]
LATEST = ["--resume_from_checkpoint", "latest"]
COMMANDS = {
    "1-rank": ["python"],
    "2-ranks": launcher("multi_gpu", 2),
    "zero2": launcher("zero2", 2),
    "zero3": launcher("zero3", 2),
}
LAUNCHES = [
    pytest.param("1-rank", signal.SIGTERM),
    pytest.param("2-ranks", signal.SIGUSR1),
    pytest.param("zero2", signal.SIGTERM, marks=[needs_compiler, pytest.mark.slow]),
    pytest.param("zero3", signal.SIGUSR1, marks=needs_compiler),
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Pairs of the project's own generator."""
    folder = tmp_path_factory.mktemp("resume")
    draw_sample(["--output_dir", str(folder / "pairs"), "--num_pairs", "120"])
    return folder / "pairs"


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory):
    """Run folder of a launch that nothing disturbs; made once each."""
    folder = tmp_path_factory.mktemp("whole")

    def make(kind):
        if not (folder / kind).exists():
            launch(COMMANDS[kind], *flags(sample, folder / kind))
        return folder / kind

    return make


def flags(sample, run, *more):
    common = ["--fusion_dropout", "0.1", "--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "4"]
    common += ["--num_train_epochs", "2", "--disable_tqdm", "true", "--save_total_limit", "99", *RHYTHM]
    return train_flags(sample, run, *common, *more, options=DROPOUT)


def assert_same(run, reference):
    assert logged_losses(run) == logged_losses(reference)
    weights, expected = load_weights(run), load_weights(reference)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    for name in ("predictions_val.csv", "split.json"):
        assert (run / name).read_text() == (reference / name).read_text()


def is_writing(run):
    with contextlib.suppress(FileNotFoundError):  # the folder went away while it was read
        return is_being_written(run / "checkpoints")
    return False


def kill_while_it_writes(kind, sample, run, log):
    """Start a job and kill it within its second checkpoint; returns the first."""
    job = start(COMMANDS[kind], *flags(sample, run), log=log)
    assert wait_for(lambda: 4 in list_steps(run) and is_writing(run), job), log.read_text()[-2000:]
    kill(job)
    if not is_writing(run):  # it was finished in the very moment of the kill: put it back to half-done
        newest, partial = list_checkpoints(run / "checkpoints")[-1], run / "checkpoints" / PARTIAL
        (newest / MANIFEST).unlink()
        partial.mkdir(exist_ok=True)
        newest.rename(partial / newest.name)
    return list_checkpoints(run / "checkpoints")[-1]


@pytest.mark.parametrize(("kind", "number"), LAUNCHES)
def test_killed_and_then_stopped_run_goes_on_bit_for_bit(kind, number, sample, whole, tmp_path):
    """Killed while it writes a checkpoint; its resume is asked to stop, writes one, and is gone on with in turn."""
    run, log = tmp_path / "run", tmp_path / "log"
    good = kill_while_it_writes(kind, sample, run, log)

    job = start(COMMANDS[kind], *flags(sample, run, *LATEST), log=log)
    assert wait_for(lambda: "'loss'" in log.read_text(), job), log.read_text()[-2000:]
    if kind == "1-rank" or number == signal.SIGTERM:  # launchers pass it on
        job.send_signal(number)
    else:  # to one rank alone, and all have to stop at the same update; the first below the job is its launcher
        os.kill(descendants(job.pid)[1], number)
    assert job.wait(timeout=60) == (REQUEUE_CODE if kind == "1-rank" else 1)
    screen = log.read_text()
    assert screen.count("ended while it wrote a checkpoint") == 1
    assert screen.count(f"Resuming from {good}") == 1
    (stopped_at,) = re.findall(r"Stopped by a signal after update (\d+)", screen)
    assert int(stopped_at) == list_steps(run)[-1] < max(logged_losses(whole(kind)))
    assert json.loads((run / "interrupted.json").read_text())["exit_code"] == REQUEUE_CODE

    screen = launch(COMMANDS[kind], *flags(sample, run, *LATEST))
    assert f"checkpoint-{stopped_at}." in screen
    assert_same(run, whole(kind))
    assert not (run / "interrupted.json").exists()
    assert not (run / "checkpoints" / PARTIAL).exists()


def test_damaged_checkpoint_is_passed_over(sample, whole, tmp_path):
    """Cut off is what rank 1 wrote, and what rank 0 wrote has lost its content at full length."""
    run = tmp_path / "run"
    shutil.copytree(whole("2-ranks"), run)
    good, zeroed, cut = list_checkpoints(run / "checkpoints")[-3:]
    optimizer = zeroed / "optimizer.pt"
    optimizer.write_bytes(bytes(optimizer.stat().st_size))
    (cut / "rng_state_1.pth").write_bytes(b"")
    screen = launch(COMMANDS["2-ranks"], *flags(sample, run, *LATEST))
    assert [screen.count(f"{damaged} is incomplete or damaged") for damaged in (zeroed, cut)] == [1, 1]
    assert f"Resuming from {good}" in screen
    assert_same(run, whole("2-ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(*each.values[:1], marks=each.marks) for each in LAUNCHES])
def test_twenty_kills_at_random_moments_change_nothing(kind, sample, tmp_path):
    """Half of them while a checkpoint is written, half at any moment between two."""
    undisturbed, cut = tmp_path / "whole", tmp_path / "cut"
    long = ["--num_train_epochs", "25"]  # on a busy machine a job gets further before it's killed
    launch(COMMANDS[kind], *flags(sample, undisturbed, *long))
    chance, while_writing = random.Random(0), 0
    for number in range(20):
        before = max(list_steps(cut), default=0)
        job = start(COMMANDS[kind], *flags(sample, cut, *long, *LATEST), log=tmp_path / "log")
        if number % 2:
            assert wait_for(lambda: not is_writing(cut), job)  # what the last kill left is cleared by the new job
            assert wait_for(lambda: is_writing(cut), job), (tmp_path / "log").read_text()[-2000:]
            time.sleep(chance.uniform(0, 0.01))
        else:
            goal = before + 4 if number % 4 else 0
            assert wait_for(lambda goal=goal: max(list_steps(cut), default=0) >= goal, job)
            time.sleep(chance.uniform(0, 0.3) if goal else chance.uniform(0, 8))
        kill(job)
        while_writing += is_writing(cut)
    assert while_writing >= 8
    assert max(list_steps(cut)) < max(logged_losses(undisturbed)), "the job was through before the last kill"
    launch(COMMANDS[kind], *flags(sample, cut, *long, *LATEST))
    assert_same(cut, undisturbed)
