"""The entries as a user starts them: real processes, one and two ranks, from training to predictions."""

import json
import sys

import pytest
import torch
from conftest import ROOT
from launching import launch, launcher, load_weights, logged_losses, train_flags, warm_python
from tiny import LABELS

import train
from data_utils.sample import main as draw_sample
from modeling.errors import InputError
from training import selfcheck
from training.launch.left_locks import check_no_lock_is_left

ONE_PROCESS = launcher("single_gpu")
TWO_RANKS = ["torchrun", "--standalone", "--nproc_per_node", "2"]  # on any free port


def test_from_training_to_predictions(sample, tmp_path):
    run, output = tmp_path / "run", tmp_path / "predictions.txt"
    screen = launch(ONE_PROCESS, *train_flags(sample, run), cold=True)
    assert "Warning" not in screen
    launch(ONE_PROCESS, "evaluate.py", str(run))
    figures = json.loads((run / "evaluation_val.json").read_text())
    trained = json.loads((run / "metrics.json").read_text())["val"]
    assert figures["accuracy"] == trained["accuracy"]
    assert figures["macro_f1_interval"] == pytest.approx(trained["macro_f1_interval"])
    asked = sample / "test_without_label.txt"
    launch(ONE_PROCESS, "evaluate.py", str(run), "--predict", str(asked), "--output", str(output))
    lines = [line.split(",") for line in output.read_text().splitlines()]
    assert [guid for guid, _ in lines] == [line.split(",")[0] for line in asked.read_text().splitlines()]
    assert {label for guid, label in lines if guid != "guid"} <= set(LABELS)


def test_a_global_batch_of_32_gives_the_same_numbers_in_three_ways(tmp_path):
    """32 x 1, 8 x 4 accumulated, 2 ranks x 4 x 4 accumulated; an epoch's last update has other than 32 rows."""
    pairs = tmp_path / "pairs"
    draw_sample(["--output_dir", str(pairs), "--num_pairs", "120"])
    runs = {name: tmp_path / name for name in ("32x1", "8x4", "2x4x4")}
    common = ["--class_weights", "balanced", "--logit_adjustment", "0.3", "--unimodal_loss_weight", "0.3"]
    common += ["--num_train_epochs", "2", "--label_smoothing_factor", "0.1"]
    for name, run in runs.items():
        per_device, accumulation = name.split("x")[-2:]
        batch = ["--per_device_train_batch_size", per_device, "--gradient_accumulation_steps", accumulation]
        words = train_flags(pairs, run, *common, *batch)
        if name == "2x4x4":
            assert launch(TWO_RANKS, *words).count("pairs for training") == 1
        else:
            train.main(words[1:])
    losses = {name: list(logged_losses(run).values()) for name, run in runs.items()}
    assert len(set(losses["32x1"])) == 6
    assert json.loads((runs["32x1"] / "metrics.json").read_text())["training"]["num_train_rows"] % 32 != 0
    first = load_weights(runs["32x1"])
    for name in ("8x4", "2x4x4"):
        assert losses[name] == pytest.approx(losses["32x1"], abs=1e-5)
        for key, value in load_weights(runs[name]).items():
            torch.testing.assert_close(value, first[key], atol=1e-5, rtol=1e-4)
        for result in ("accuracy", "loss"):
            values = [json.loads((runs[run] / "metrics.json").read_text())["val"][result] for run in ("32x1", name)]
            assert values[1] == pytest.approx(values[0], abs=1e-5)


SLOW_FIRST_RANK = """
import os, sys, time
from data_utils.system.refusals import MachineError
from modeling.errors import InputError
from training.launch.console import exit_on_user_error

with exit_on_user_error():
    time.sleep(2 if os.environ["RANK"] == "0" else 0)
    raise {"InputError": InputError, "MachineError": MachineError}[sys.argv[1]]("The rows differ; take the others.")
"""


@pytest.mark.parametrize("kind", ["InputError", "MachineError"])
def test_a_mistake_is_named_once_by_the_first_rank_however_late(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "program.py").write_text(SLOW_FIRST_RANK)
    words = ["--nproc_per_node", "2", "--master_port", "0", str(tmp_path / "program.py"), kind]
    screen = launch(["torchrun"], *words, code=1)
    assert screen.count("The rows differ; take the others.") == 1
    assert "error: The rows differ" in screen


def test_one_process_where_several_were_asked_for_is_refused(sample, tmp_path):
    """accelerate's way of "--cpu --num_processes 2" is to start one."""
    command = ["accelerate", "launch", "--cpu", "--num_processes", "2", "--main_process_port", "0"]
    screen = launch(command, *train_flags(sample, tmp_path / "run"), code=1)
    assert screen.count("error: accelerate was asked for several processes, but started one") == 1
    assert not (tmp_path / "run").exists()


def test_a_lock_that_a_killed_job_left_where_deepspeed_compiles_is_named(sample, tmp_path, monkeypatch):
    """One that is held is waited for, which the other tests of DeepSpeed rely on."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    lock = tmp_path / "extensions" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w"):
        check_no_lock_is_left()
    screen = launch(launcher("zero2", 2), *train_flags(sample, tmp_path / "run"), code=1)
    (error,) = [line for line in screen.splitlines() if line.startswith("error: ")]
    assert error.endswith(f"rm {lock}")
    assert not (tmp_path / "run").exists()


def test_selfcheck_finds_the_same_numbers_and_passes_on_refusals(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(warm_python().program))
    config = str(ROOT / "accelerate_configs" / "multi_gpu.yaml")
    selfcheck.main(["--config_file", config, "--num_processes", "2", "--updates", "3", "--main_process_port", "0"])
    screen = capsys.readouterr().out
    assert "the same numbers" in screen
    assert len([line for line in screen.splitlines() if line.startswith(("1 ", "2 ", "3 "))]) == 3
    with pytest.raises(SystemExit) as ending:
        selfcheck.report({1: 1.0, 2: 0.9}, {1: 1.0, 2: 0.8}, tolerance=1e-5)
    assert ending.value.code == 1
    assert "OTHER NUMBERS" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"The training \(wrong\) failed: .*Did you mean --fusion"):
        selfcheck.train(tmp_path, "wrong", launcher=[], updates=1, flags=["--fusoin", "early"])
