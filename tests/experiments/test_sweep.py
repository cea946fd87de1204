"""train.py --sweep: every trial is what train.py trains, rows are judged once, and a killed sweep goes on."""

import json
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
import yaml
from conftest import read_csv
from launching import launch, launcher
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import LABELS

import train
from data_utils.splits.split_file import Split, save_split
from modeling.errors import InputError
from run_files.sweep_folder import SweepFolder, TrialRecord
from training.heads.side_by_side import train_side_by_side
from training.heads.sweep import plan_towers, wait_for_trials
from training.heads.sweep_recipe import read_sweep


@pytest.fixture
def write_recipe(base_recipe, tmp_path):
    """Factory of a recipe."""
    own = {"output_dir": str(tmp_path / "sweep"), "fusion_dropout": 0, "num_train_epochs": 2}
    base = base_recipe | own | {"head_learning_rate": 0.03}

    def write(sweep, **flags):
        path = tmp_path / "heads.yaml"
        path.write_text(yaml.safe_dump(base | flags | {"sweep": sweep}))
        return path

    return write


@pytest.fixture
def run_sweep(write_recipe, tmp_path):
    """Run train.py's main on a recipe; returns the folder of the sweep."""

    def run(sweep, *words, **flags):
        train.main(["--sweep", str(write_recipe(sweep, **flags)), *words])
        return tmp_path / "sweep"

    return run


def read_probabilities(path):
    return {row["guid"]: [float(row[f"prob_{name}"]) for name in LABELS] for row in read_csv(path)}


def read_record(sweep, number):
    return json.loads((sweep / "trials" / f"{number:04d}.json").read_text())


@pytest.mark.parametrize("fusion", ["clip_match", "co_attn"])
def test_trial_equals_training_with_its_flags(run_sweep, tmp_path, fusion):
    sweep = run_sweep(
        {"fusion": ["early", fusion], "seed": [7, 8]},
        **{"num_train_epochs": 4, "modality_dropout": 0.3, "class_weights": "sqrt", "label_smoothing_factor": 0.1},
        **{"logit_adjustment": 0.5, "unimodal_loss_weight": 0.4},
        **{"metric_for_best_model": "loss", "max_grad_norm": 0.5, "weight_decay": 0.1},
    )
    record = read_record(sweep, 3)
    assert record["values"] == {"fusion": fusion, "seed": "8"}
    run = tmp_path / "run"
    train.main([*record["flags"], "--output_dir", str(run)])
    expected = read_probabilities(run / "predictions_val.csv")
    found = read_probabilities(sweep / "predictions" / "0003.csv")
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-6)
    metrics = json.loads((run / "metrics.json").read_text())
    assert record["best_epoch"] == metrics["best"]["epoch"]
    assert record["metrics"]["macro_f1"] == pytest.approx(metrics["val"]["macro_f1"])
    # Not by chance or by doing nothing: rows, seeds and heads differ a thousand times as much.
    assert np.std(list(found.values()), axis=0).max() > 1e-3
    for other in (1, 2):
        others = read_probabilities(sweep / "predictions" / f"{other:04d}.csv")
        assert np.abs(np.subtract(list(others.values()), list(found.values()))).max() > 1e-3


def test_folds_judge_every_row_once_and_part_no_twins(run_sweep):
    sweep = run_sweep({"fusion": ["early", "text_only"], "seed": [1, 2], "folds": 3}, val_ratio=None)
    for first in range(0, 12, 3):
        joined = read_csv(sweep / "predictions" / f"out_of_fold_{first:04d}-{first + 2:04d}.csv")
        assert sorted(int(row["guid"]) for row in joined) == list(range(60))
        parts = [read_csv(sweep / "predictions" / f"{first + fold:04d}.csv") for fold in range(3)]
        assert sorted(map(str, joined)) == sorted(str(row) for part in parts for row in part)
        for fold, part in enumerate(parts):
            split = json.loads((sweep / "splits" / f"fold-{fold}.json").read_text())
            assert {row["guid"] for row in part} == set(split["val"])
            assert not {int(guid) % 30 for guid in split["val"]} & {int(guid) % 30 for guid in split["train"]}
    summary = read_csv(sweep / "summary.csv")
    expected = [(name, "2", "60") for name in ("early", "text_only")]
    assert [(row["fusion"], row["seeds"], row["rows"]) for row in summary] == expected
    joined = [read_csv(sweep / "predictions" / f"out_of_fold_{name}.csv") for name in ("0000-0002", "0003-0005")]
    right = [[row["label"] == row["prediction"] for row in rows] for rows in joined]
    assert float(summary[0]["accuracy_mean"]) == pytest.approx(np.mean(right))
    assert float(summary[0]["accuracy_std"]) == pytest.approx(np.std(np.mean(right, axis=1), ddof=1))
    assert float(summary[0]["accuracy_low"]) <= np.mean(right) <= float(summary[0]["accuracy_high"])


@pytest.mark.parametrize("bf16", [False, True])
def test_figures_do_not_depend_on_how_many_trials_train_side_by_side(run_sweep, tmp_path, monkeypatch, bf16):
    choices = {"fusion": ["attn", "early"], "seed": [7, 8]}
    found = []
    for num_threads in (1, 4):
        monkeypatch.setattr("torch.get_num_threads", lambda number=num_threads: number)
        sweep = run_sweep(choices, fusion_dropout=0.3, bf16=bf16, output_dir=str(tmp_path / "sweep"))
        found.append([(sweep / "predictions" / f"{number:04d}.csv").read_text() for number in range(4)])
        sweep.rename(tmp_path / f"threads-{num_threads}")
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_trial_that_fails_ends_the_others(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    finished = []

    def train(trial, stop):
        if trial == 1:
            raise ZeroDivisionError
        assert stop.wait(timeout=30)
        raise CancelledError

    with pytest.raises(ZeroDivisionError):
        train_side_by_side([0, 1, 2, 3], train, lambda *outcome: finished.append(outcome))
    assert not finished


def test_towers_are_planned_for_all_heads(write_recipe, encoders, monkeypatch):
    """vilbert looks up no picture tower for the first trial's head."""
    monkeypatch.setattr("training.build.plan.DEFAULT_TEXT_NAME", str(encoders / "text"))
    monkeypatch.setattr("training.build.plan.DEFAULT_VISION_NAME", str(encoders / "vision"))
    names = dict.fromkeys(("text_name", "vision_name", "projection_dim"))
    recipe = write_recipe({"fusion": ["text_only", "image_only"]}, model="vilbert", **names)
    plan = plan_towers(read_sweep(["--sweep", str(recipe)]))
    assert (plan.text.source.name, plan.vision.source.name) == (str(encoders / "text"), str(encoders / "vision"))


def test_killed_or_damaged_sweep_goes_on_and_another_moves_it_aside(run_sweep, tmp_path, caplog):
    choices = {"seed": [1, 2, 3, 4, 5, 6], "head_learning_rate": [0.01]}
    flags = {"head_learning_rate": None, "num_train_epochs": 1}
    sweep = run_sweep(choices, **flags)
    files = sorted((sweep / "predictions").iterdir())
    before, summary = {path: path.read_text() for path in files}, (sweep / "summary.csv").read_text()
    (sweep / "trials" / "0000.json").unlink()  # as if it was killed before the last file of this trial
    (sweep / "predictions" / "0000.csv").unlink()
    (sweep / "trials" / "0001.json").write_text('{"number": 1, "values"')
    (sweep / "trials" / "0002.json").write_text("[]")
    (sweep / "predictions" / "0003.csv").unlink()
    (sweep / "predictions" / "0004_last.csv").write_text("guid,label")
    whole = (sweep / "trials" / "0005.json").stat().st_mtime_ns
    caplog.clear()
    run_sweep(choices, **flags)
    assert "Trained again, since files of theirs are damaged or gone: trials 1, 2, 3, 4." in caplog.text
    assert "1 trials are there" in caplog.text
    assert {path: path.read_text() for path in files} == before
    assert strip_seconds((sweep / "summary.csv").read_text()) == strip_seconds(summary)
    assert [read_record(sweep, number)["values"]["seed"] for number in range(6)] == list("123456")
    assert (sweep / "trials" / "0005.json").stat().st_mtime_ns == whole
    run_sweep({"seed": [1]}, weight_decay=0.5, **flags)
    assert len(list((tmp_path / "sweep.old-1" / "trials").iterdir())) == 6
    assert yaml.safe_load((sweep / "config.yaml").read_text())["training"]["weight_decay"] == 0.5


def strip_seconds(table):
    return [line.rsplit(",", 1)[0] for line in table.splitlines()]


def test_command_line_wins_and_a_trial_that_diverges_is_named(run_sweep):
    sweep = run_sweep(
        {"seed": [1, 2], "head_learning_rate": [0.01, "1e30"]}, "--seed", "5", fusion="late", head_learning_rate=None
    )
    trials = read_csv(sweep / "trials.csv")
    assert [row["head_learning_rate"] for row in trials] == ["0.01", "1e30"]
    assert yaml.safe_load((sweep / "config.yaml").read_text())["training"]["seed"] == 5
    assert not trials[0]["error"]
    assert float(trials[0]["accuracy"]) > 0
    assert "in epoch 1" in trials[1]["error"]
    assert not trials[1]["accuracy"]
    table = (sweep / "summary.md").read_text()
    assert "| 1e30 | 0 (1 failed) |" in table
    assert "| always " in table
    assert "chosen by its accuracy on the very rows that it is judged by" in table


def test_ranks_share_the_trials(run_sweep, write_recipe, tmp_path):
    choices = {"fusion": ["early", "late", "text_only"]}
    alone = run_sweep(choices)
    recipe = write_recipe(choices, output_dir=str(tmp_path / "shared"))
    launch(launcher("multi_gpu", 2), "train.py", "--sweep", str(recipe))
    tables = [strip_seconds((folder / "summary.csv").read_text()) for folder in (alone, tmp_path / "shared")]
    assert tables[0] == tables[1]


def test_split_file_decides_whether_there_are_validation_rows(run_sweep, tmp_path, refusal):
    """--val_ratio has no say beside it."""
    val = [str(number) for number in range(60) if number % 30 < 9]
    train_rows = [str(number) for number in range(60) if str(number) not in val]
    file = tmp_path / "given.json"
    save_split(Split(tuple(train_rows), tuple(val), seed=None, val_ratio=None), file)
    sweep = run_sweep({"fusion": ["early"]}, split_file=str(file), val_ratio=0)
    assert {row["guid"] for row in read_csv(sweep / "predictions" / "0000.csv")} == set(val)
    save_split(Split((*train_rows, *val), (), seed=None, val_ratio=None), file)
    sentence = refusal(run_sweep, {"fusion": ["early"]}, split_file=str(file))
    assert "A sweep compares heads on validation rows" in sentence


def test_sweep_killed_before_its_first_trial_writes_all_of_its_files(run_sweep, tmp_path, monkeypatch):
    def die(*_):
        raise ZeroDivisionError

    choices = {"seed": [1], "folds": 2}
    with monkeypatch.context() as patch:
        patch.setattr("data_utils.sources.quarantine.Quarantine.save", die)
        with pytest.raises(ZeroDivisionError):
            run_sweep(choices, val_ratio=None)
    sweep = tmp_path / "sweep"
    assert {path.name for path in sweep.iterdir()} == {"splits"}
    run_sweep(choices, val_ratio=None)
    names = {path.name for path in sweep.iterdir()}
    assert names >= {"config.yaml", "splits", "quarantine.csv", "summary.csv"}
    assert not (tmp_path / "sweep.old-1").exists()


def test_trials_of_other_ranks_are_waited_for_before_the_barrier(write_recipe, tmp_path, monkeypatch):
    recipe = read_sweep(["--sweep", str(write_recipe({"seed": [1, 2]}))])
    folder, happened = SweepFolder(tmp_path / "sweep"), []

    def finish_one(seconds):
        happened.append(len(folder.finished()))
        folder.write_trial(TrialRecord(happened[-1], {"seed": "1"}, [], seconds, error="diverged"), None)

    monkeypatch.setattr("training.heads.sweep.time.sleep", finish_one)
    monkeypatch.setattr("training.heads.sweep.wait_for_everyone", lambda: happened.append("barrier"))
    wait_for_trials(folder, recipe)
    assert happened == [0, 1, "barrier"]
    assert folder.drop_damaged() == []  # a trial that diverged is whole without predictions


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the choice is one of CPUs")
def test_precision_is_that_of_the_largest_model_wherever_it_stands(run_sweep, monkeypatch):
    monkeypatch.setattr("training.launch.checks.has_fast_bf16", lambda: True)
    monkeypatch.setattr("training.flags.arguments.count_matrix_weights", lambda model: len(model.towers()))
    monkeypatch.setattr("training.flags.arguments.MIN_WEIGHTS_FOR_BF16", 2)
    sweep = run_sweep({"fusion": ["text_only", "co_attn"]}, num_train_epochs=1)
    assert yaml.safe_load((sweep / "config.yaml").read_text())["training"]["bf16"] is True
    assert [read_record(sweep, number)["error"] for number in (0, 1)] == [None, None]


@pytest.mark.parametrize(
    ("sweep", "flags", "message"),
    [
        ({"fusoin": ["early"]}, {}, "Did you mean fusion?"),
        ({"text_name": ["a", "b"]}, {}, "allowed are fusion, seed"),
        ({"fusion": "early"}, {}, "takes a list"),
        ({"fusion": ["early", "atn"]}, {}, "Did you mean attn"),
        ({"head_learning_rate": [-1]}, {"head_learning_rate": None}, "takes 0 or more"),
        ({"learning_rate": [0.1]}, {}, "leave one of them out"),
        ({"fusion": ["early"]}, {"fusion": "late"}, "stands twice"),
        ({"folds": 2.5}, {"val_ratio": None}, "whole number"),
        ({"folds": 3}, {}, "--val_ratio and folds"),
        ({"seed": [1]}, {"val_ratio": 0}, "validation rows"),
        ({"seed": [1]}, {"freeze": "none"}, "frozen towers"),
        ({"seed": [1]}, {"max_steps": 5}, "--max_steps 5"),
        ({"seed": [1]}, {"eval_delay": 1}, "--eval_delay 1"),
        ({"seed": [1]}, {"full_determinism": True}, "--full_determinism True"),
        ({"num_train_epochs": [1.5]}, {"num_train_epochs": None}, "whole ones"),
        ({"seed": [1]}, {"resume_from_checkpoint": "x"}, "by itself"),
        ({"seed": [1]}, {"optim": "galore_adamw"}, "two learning rates"),
        ({"lr_scheduler_type": ["reduce_lr_on_plateau"]}, {}, "can't do"),
        ({"lr_scheduler_type": ["cosine", "warmup_stable_decay"]}, {}, "takes JSON with num_decay_steps"),
        ({}, {}, "no section `sweep`"),
    ],
)
def test_mistakes_get_one_sentence(write_recipe, sweep, flags, message):
    with pytest.raises(InputError, match=message):
        read_sweep(["--sweep", str(write_recipe(sweep, **flags))])


def test_each_trial_is_a_run_in_the_trackers_that_are_asked_for(run_sweep):
    choices, flags = {"fusion": ["early"], "head_learning_rate": [0.01, "1e30"]}, {"head_learning_rate": None}
    sweep = run_sweep(choices, report_to="tensorboard", **flags)
    runs = [EventAccumulator(str(sweep / "logs" / f"sweep-{number:04d}")) for number in range(2)]
    for events in runs:
        events.Reload()
    (shown,) = runs[0].Scalars("final/accuracy")
    assert shown.value == pytest.approx(read_record(sweep, 0)["metrics"]["accuracy"])
    assert {"final/accuracy_low", "final/macro_f1_high"} <= {*runs[0].Tags()["scalars"]}
    told = [json.loads(events.Tensors("args/text_summary")[0].tensor_proto.string_val[0]) for events in runs]
    assert [each["sweep/head_learning_rate"] for each in told] == ["0.01", "1e30"]
    assert not runs[1].Tags()["scalars"]  # it diverged
    before = sorted((sweep / "logs").rglob("events*"))
    run_sweep(choices, report_to="tensorboard", **flags)
    assert sorted((sweep / "logs").rglob("events*")) == before
    assert run_sweep({"seed": [1]}, report_to=None)
    assert not (sweep / "logs").exists()
