"""A killed job goes on as if nothing had happened: the same losses and weights, bit for bit."""

import contextlib
import json
import os
import random
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

from training.checkpoint.checkpoints import MANIFEST, PARTIAL, is_growing, list_checkpoints
from training.launch.signals import REQUEUE_CODE

# Dropout is on: the random numbers have to go on too. 19 updates an epoch of 2 x 4 rows: checkpoints mid-epoch.
DROPOUT = {"attention_dropout": 0.1}
RHYTHM = ["--eval_strategy", "steps", "--eval_steps", "4", "--save_strategy", "steps", "--save_steps", "4"]
LAUNCHES = [
    pytest.param("single_gpu", None, id="1-rank"),
    pytest.param("multi_gpu", 2, id="2-ranks"),
    pytest.param("zero2", 2, id="zero2", marks=needs_compiler),
    pytest.param("zero3", 2, id="zero3", marks=needs_compiler),
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Pairs of the project's own generator, and the cache, so that a launch soon comes to its updates."""
    folder = tmp_path_factory.mktemp("resume")
    launch(["python"], "-m", "data_utils.sample", "--output_dir", str(folder / "pairs"), "--num_pairs", "200")
    return folder / "pairs"


def flags(sample, run, *more, options=DROPOUT):
    common = ["--fusion_dropout", "0.1", "--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "4"]
    common += ["--num_train_epochs", "3", "--disable_tqdm", "true", *RHYTHM]
    return train_flags(sample, run, *common, *more, options=options)


def assert_same(run, reference):
    assert logged_losses(run) == logged_losses(reference)
    weights, expected = load_weights(run), load_weights(reference)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    for name in ("predictions_val.csv", "split.json"):
        assert (run / name).read_text() == (reference / name).read_text()


def is_writing(run):
    with contextlib.suppress(FileNotFoundError):  # the folder went away while it was read
        return is_growing(run / "checkpoints")
    return False


@pytest.mark.parametrize(("config", "ranks"), LAUNCHES)
def test_killed_run_goes_on_bit_for_bit(config, ranks, sample, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    launch(launcher(config, ranks), *flags(sample, whole))
    job = start(launcher(config, ranks), *flags(sample, cut), log=tmp_path / "log")
    assert wait_for(lambda: any(step >= 8 for step in list_steps(cut)), job)
    kill(job)
    assert max(list_steps(cut)) < max(logged_losses(whole))
    screen = launch(launcher(config, ranks), *flags(sample, cut, "--resume_from_checkpoint", "latest"))
    assert screen.count("Resuming from") == 1
    assert_same(cut, whole)


def test_kill_while_a_checkpoint_is_written_leaves_the_last_good_one(sample, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    launch(launcher("multi_gpu", 2), *flags(sample, whole, "--save_total_limit", "99"))
    job = start(launcher("multi_gpu", 2), *flags(sample, cut, "--save_total_limit", "99"), log=tmp_path / "log")
    assert wait_for(lambda: 4 in list_steps(cut) and is_writing(cut), job)
    kill(job)
    if not is_writing(cut):  # it was finished in the very moment of the kill: put it back to half-done
        newest, partial = list_checkpoints(cut / "checkpoints")[-1], cut / "checkpoints" / PARTIAL
        (newest / MANIFEST).unlink()
        partial.mkdir(exist_ok=True)
        newest.rename(partial / newest.name)
    good = list_checkpoints(cut / "checkpoints")[-1]
    more = ["--save_total_limit", "99", "--resume_from_checkpoint", "latest"]
    screen = launch(launcher("multi_gpu", 2), *flags(sample, cut, *more))
    assert screen.count("ended while it wrote a checkpoint") == 1
    assert f"Resuming from {good}" in screen
    assert_same(cut, whole)
    assert not (cut / "checkpoints" / PARTIAL).exists()


@pytest.mark.parametrize(
    ("ranks", "number"),
    [
        (1, signal.SIGTERM),
        pytest.param(1, signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.slow),
        (2, signal.SIGUSR1),
    ],
)
def test_signal_writes_a_checkpoint_and_asks_to_be_requeued(ranks, number, sample, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["torchrun", "--nproc_per_node", "2", "--master_port", "29613"] if ranks == 2 else ["python"]
    # No checkpoints of its own: what there is, the signal made.
    rare = ["--save_steps", "1000", "--eval_steps", "1000"]
    launch(command, *flags(sample, whole, *rare))
    job = start(command, *flags(sample, cut, *rare), log=tmp_path / "log")
    assert wait_for(lambda: "'loss'" in (tmp_path / "log").read_text(), job)
    if ranks == 1:
        job.send_signal(number)
    else:  # torchrun passes SIGTERM on; SIGUSR1 comes to one rank alone, and all have to stop at the same update
        os.kill(job.pid if number == signal.SIGTERM else descendants(job.pid)[0], number)
    assert job.wait(timeout=60) == (REQUEUE_CODE if ranks == 1 else 1)
    screen = (tmp_path / "log").read_text()
    assert screen.count("Stopped by a signal after update") == 1
    assert json.loads((cut / "interrupted.json").read_text())["exit_code"] == REQUEUE_CODE
    assert len(list_steps(cut)) == 1
    launch(command, *flags(sample, cut, *rare, "--resume_from_checkpoint", "latest"))
    assert not (cut / "interrupted.json").exists()
    assert_same(cut, whole)


@pytest.mark.parametrize(
    ("config", "ranks"),
    [("multi_gpu", 2), pytest.param("zero2", 2, marks=[needs_compiler, pytest.mark.slow])],
)
def test_another_world_size_goes_on_with_the_same_rows(config, ranks, sample, tmp_path):
    """Without dropout the numbers are those of the uninterrupted run, as far as the optimizer's state can be read."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    common = ["--fusion_dropout", "0", "--max_steps", "12", "--save_total_limit", "9"]
    launch(launcher(config, ranks), *flags(sample, whole, *common, options={}))
    shutil.copytree(whole, run)
    for step in (8, 12):
        shutil.rmtree(run / "checkpoints" / f"checkpoint-{step}")
    more = [*common, "--resume_from_checkpoint", "latest"]
    screen = launch(["python"], *flags(sample, run, *more, options={}))
    assert "16 rows per update: --per_device_train_batch_size 4, --gradient_accumulation_steps 4 on 1" in screen
    losses, expected = logged_losses(run), logged_losses(whole)
    assert list(losses) == list(expected)
    if config == "multi_gpu":
        assert list(losses.values()) == pytest.approx(list(expected.values()), abs=1e-5)
    else:
        assert "starts anew" in screen
        assert losses[5] == pytest.approx(expected[5], abs=1e-5), "weights and rows go on"


def test_damaged_checkpoint_is_passed_over(sample, tmp_path):
    """Cut off is what rank 1 wrote, and what rank 0 wrote has lost its content at full length."""
    run = tmp_path / "run"
    launch(launcher("multi_gpu", 2), *flags(sample, run, "--max_steps", "12", "--save_total_limit", "9"))
    good, zeroed, cut = list_checkpoints(run / "checkpoints")
    optimizer = zeroed / "optimizer.pt"
    optimizer.write_bytes(bytes(optimizer.stat().st_size))
    (cut / "rng_state_1.pth").write_bytes(b"")
    more = ["--max_steps", "12", "--resume_from_checkpoint", "latest"]
    screen = launch(launcher("multi_gpu", 2), *flags(sample, run, *more))
    assert [screen.count(f"{damaged} is incomplete or damaged") for damaged in (zeroed, cut)] == [1, 1]
    assert f"Resuming from {good}" in screen


@pytest.mark.slow
@pytest.mark.parametrize(("config", "ranks"), LAUNCHES)
def test_twenty_kills_at_random_moments_change_nothing(config, ranks, sample, tmp_path):
    """Half of them while a checkpoint is written, half at any moment between two."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    long = ["--num_train_epochs", "16"]  # on a busy machine a job gets further before it's killed
    launch(launcher(config, ranks), *flags(sample, whole, *long))
    chance, while_writing = random.Random(0), 0
    for number in range(20):
        before = max(list_steps(cut), default=0)
        job = start(
            launcher(config, ranks),
            *flags(sample, cut, *long, "--resume_from_checkpoint", "latest"),
            log=tmp_path / "log",
        )
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
    assert max(list_steps(cut)) < max(logged_losses(whole)), "the job was through before the last kill"
    launch(launcher(config, ranks), *flags(sample, cut, *long, "--resume_from_checkpoint", "latest"))
    assert_same(cut, whole)
