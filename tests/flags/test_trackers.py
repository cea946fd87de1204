"""What trackers are shown: the figures of metrics.json, all flags, and a run for each training."""

import gc
import json
import sys
import textwrap

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modeling.errors import InputError
from training.flags.arguments import SentimentTrainingArguments
from training.heads.sweep_recipe import read_sweep
from training.launch.trackers import final_figures, list_trackers, show_settings

WANDB = '''
    """Keeps what it is told."""
    runs = []
    run = None

    class Settings(dict):
        def update(self, values, allow_val_change=False):
            super().update(values)

    class Run:
        def __init__(self, name):
            self.name, self.id, self.logs, self.summary, self.is_finished = name, "id", [], {}, False

        def _label(self, code):
            pass

    def init(project, name=None):
        global run, config
        run, config = Run(name), Settings()
        run.config = config
        runs.append(run)

    def log(values):
        run.logs.append(values)

    def finish():
        global run
        run.is_finished = True
        run = None
'''


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A package of this name, whose runs can be looked at."""
    for name, text in {"wandb": WANDB, "wandb/sdk": "", "wandb/sdk/lib": ""}.items():
        (tmp_path / "packages" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "packages" / name / "__init__.py").write_text(textwrap.dedent(text))
    (tmp_path / "packages/wandb/sdk/lib/config_util.py").write_text("class ConfigError(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield __import__("wandb")
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]


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


def test_each_fold_and_seed_is_a_run_of_its_own_with_its_name(run_train, wandb):
    flags = ["--folds", "2", "--max_steps", "1", "--report_to", "tensorboard", "wandb", "--run_name", "first"]
    run, _ = run_train("--fusion", "early", *flags)
    assert [each.name for each in wandb.runs] == ["first-seed-42-fold-0", "first-seed-42-fold-1"]
    assert all(each.is_finished for each in wandb.runs)
    for number, tracked in enumerate(wandb.runs):
        member = run / "members" / f"seed-42-fold-{number}"
        metrics = read_metrics(member)
        (final,) = [logs for logs in tracked.logs if any(name.startswith("final/") for name in logs)]
        assert final == final_figures(metrics)
        assert final["final/test_accuracy"] == metrics["test"]["accuracy"]
        assert [final["final/accuracy_low"], final["final/accuracy_high"]] == metrics["val"]["accuracy_interval"]
        assert tracked.config["data/labels"] == '["negative", "neutral", "positive"]'
        assert tracked.config["model/fusion"] == "early"
        assert list((member / "logs").iterdir())


def test_settings_are_flat_and_of_types_that_every_tracker_takes(tmp_path):
    shown = show_settings({"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": True, "g": "word"})
    assert shown == {"a/b": 1, "a/c/d": "null", "e": '[1, "x"]', "f": True, "g": "word"}
    args = SentimentTrainingArguments(output_dir=str(tmp_path), report_to=["none"], hub_token="secret")
    args = args.beside(model={"fusion": "late", "clip_name": None})
    assert args.to_dict()["model/clip_name"] == "null"
    assert {type(value) for value in args.to_dict().values()} <= {str, int, float, bool}
    assert "secret" not in args.to_json_string()


def test_tracker_of_a_sweep_is_refused(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data_dir: data\nreport_to: tensorboard\nsweep: {fusion: [early, late]}\n")
    with pytest.raises(InputError, match="Got --report_to tensorboard, but the trials of a sweep"):
        read_sweep(["--sweep", str(recipe)])
    assert read_sweep(["--sweep", str(recipe), "--report_to", "none"]).trials[0].flags.training.report_to == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["wandb", "mlflow", "codecarbon"])
def test_tracker_without_its_package_is_refused_in_one_sentence(name, capfd):
    with pytest.raises(InputError, match=rf"--report_to {name}, which can't be had here \("):
        list_trackers([name])
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err
