"""What trackers are shown: the figures of metrics.json, all flags, and a run for each training."""

import gc
import json
import os
import sys

import pytest
from launching import launch, train_flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trackers import read_mlflow, read_trackio, read_wandb

from modeling.errors import InputError
from training.flags.arguments import SentimentTrainingArguments
from training.launch.trackers import final_figures, list_trackers, show_settings, tracked


def read_metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_tensorboard_has_the_final_figures_with_intervals_and_all_flags(run_train):
    run, _ = run_train("--fusion", "early", "--max_steps", "2", "--report_to", "tensorboard", "--class_weights", "sqrt")
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    scalars = {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    val = read_metrics(run)["val"]
    assert scalars["final/accuracy"] == pytest.approx([val["accuracy"]])
    bounds = scalars["final/accuracy_low"] + scalars["final/accuracy_high"]
    assert bounds == pytest.approx(val["accuracy_interval"])
    assert scalars["final/per_class/negative/f1"] == pytest.approx([val["per_class"]["negative"]["f1"]])
    assert "final/test_accuracy" not in scalars
    assert not [name for name in scalars if name.startswith("train/final")]
    assert scalars["eval/accuracy"]
    (told,) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("args/text_summary")]
    told = json.loads(told)
    assert (told["model/fusion"], told["data/on_bad_pair"], told["class_weights"]) == ("early", "mask", "sqrt")


def test_each_tracker_has_folds_as_a_group_of_runs_below_the_run_folder(sample, tmp_path, monkeypatch):
    """With all flags, figures with intervals and pictures; and nothing anywhere else."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = tmp_path / "run"
    flags = ["--folds", "2", "--max_steps", "1", "--run_name", "first", "--fusion", "early"]
    flags += ["--report_to", "tensorboard", "wandb", "mlflow", "trackio"]
    launch(["python"], *train_flags(sample, run, *flags))
    names = ["first", "first-seed-42-fold-0", "first-seed-42-fold-1"]
    out_of_fold = {"test": read_metrics(run)["out_of_fold"]["averaged"]}
    members = [read_metrics(run / "members" / name.removeprefix("first-")) for name in names[1:]]
    expected = dict(zip(names, map(final_figures, (out_of_fold, *members)), strict=True))
    assert expected["first"]["final/test_accuracy_low"] == out_of_fold["test"]["accuracy_interval"][0]
    for read in (read_wandb, read_mlflow, read_trackio):
        runs = read(run / "logs")
        assert sorted(runs) == names
        for name, each in runs.items():
            assert each["group"] == "first"
            assert (each["config"]["model/fusion"], each["config"]["data/on_bad_pair"]) == ("early", "mask")
            final = {figure: value for figure, value in each["figures"].items() if figure.startswith("final/")}
            assert final == pytest.approx(expected[name])
            assert each.get("ended", True)
    assert read_mlflow(run / "logs")["first"]["pictures"] == ["reliability.png"]
    assert len([*run.glob("logs/wandb/offline-run-*/files/media/images/reliability*.png")]) == 1
    assert "reliability" in read_trackio(run / "logs")["first"]["figures"]
    events = EventAccumulator(str(run / "logs" / "first"))
    events.Reload()
    assert events.Tags()["images"] == ["reliability"]
    foreign = {path for path in tmp_path.rglob("*") if {"wandb", "mlflow", "mlruns", "trackio"} & {*path.parts}}
    assert all(path.is_relative_to(run / "logs") for path in foreign)


def test_settings_are_flat_and_of_types_that_every_tracker_takes(tmp_path):
    shown = show_settings({"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": True, "g": "word"})
    assert shown == {"a/b": 1, "a/c/d": "null", "e": '[1, "x"]', "f": True, "g": "word"}
    args = SentimentTrainingArguments(output_dir=str(tmp_path), report_to=["none"], hub_token="secret")
    args = args.beside(model={"fusion": "late", "clip_name": None})
    assert args.to_dict()["model/clip_name"] == "null"
    assert {type(value) for value in args.to_dict().values()} <= {str, int, float, bool}
    assert "secret" not in args.to_json_string()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny"), ("trackio", "trackio")])
def test_tracker_without_its_package_is_refused_in_one_sentence(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"--report_to {name}, which can't be had here .*; pip install {package}\."):
        list_trackers([name])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_unusual_tracker_without_its_package_is_refused_without_a_traceback(capfd):
    with pytest.raises(InputError, match=r"--report_to codecarbon, which can't be had here \("):
        list_trackers(["codecarbon"])
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_environment_of_the_user_and_of_a_larger_group_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    with tracked(tmp_path / "folds", "folds"), tracked(tmp_path / "member", "member"):
        found = [os.environ[name] for name in ("WANDB_MODE", "WANDB_RUN_GROUP", "TRACKIO_DIR")]
    assert found == ["online", "folds", str(tmp_path / "folds" / "logs" / "trackio")]
    assert "TRACKIO_DIR" not in os.environ
