"""CPU and GPU agree: losses, logits, evaluation, prediction, features, a sweep, a stream."""

import csv
import json

import pytest
import torch
import yaml
from launching import logged_losses
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from transformers.utils.import_utils import enable_tf32

import train
from benchmarks.setting import write_clip
from data_utils import shard

pytestmark = pytest.mark.gpu

UPDATES = ["--max_steps", "20", "--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", "20"]
UPDATES += ["--learning_rate", "3e-3"]
ON_CPU = ["--use_cpu", "True"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def train_on_both(train_here, tmp_path):
    """Train by the same flags on both devices, each with a cache of its own; returns their run folders."""

    def run(*words, **options):
        folders = []
        for name, device in (("cpu", ON_CPU), ("gpu", [])):
            own = ["--cache_dir", str(tmp_path / f"cache-{name}"), *device]
            folders.append(train_here(tmp_path / name, *UPDATES, *words, *own, **options))
        return folders

    return run


@pytest.fixture
def evaluate_on_both(evaluate_main, tmp_path, monkeypatch):
    """evaluate.py's main over a run on both devices, each with a cache of its own; between them `keep` is called."""

    def run(folder, *words, keep):
        found = []
        for name in ("cpu", "gpu"):
            monkeypatch.setenv("ACCELERATE_USE_CPU", str(name == "cpu"))
            evaluate_main(folder, *words, "--cache_dir", tmp_path / f"cache-evaluation-{name}")
            found.append(keep())
        return found

    return run


def read_probabilities(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [[float(value) for name, value in row.items() if name.startswith("prob_")] for row in rows]


def assert_near(first, second, tolerance):
    torch.testing.assert_close(torch.tensor(first), torch.tensor(second), atol=tolerance, rtol=0)


def test_losses_of_20_updates_agree(train_on_both):
    on_cpu, on_gpu = train_on_both()
    expected = logged_losses(on_cpu)
    assert len(set(expected.values())) == 20
    assert logged_losses(on_gpu) == pytest.approx(expected, abs=1e-4)
    device = yaml.safe_load((on_gpu / "config.yaml").read_text())["environment"]["device"]
    assert device.startswith(DEVICE)


def test_losses_in_bfloat16_agree_with_those_of_the_cpu_in_float32(train_here, tmp_path):
    on_cpu = train_here(tmp_path / "cpu", *UPDATES, *ON_CPU)
    on_gpu = train_here(tmp_path / "gpu", *UPDATES, "--bf16")
    assert logged_losses(on_gpu) == pytest.approx(logged_losses(on_cpu), abs=2e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_agree(architecture):
    enable_tf32(False)
    model, batch = tiny_model(architecture).eval(), tiny_batch(8)
    with torch.no_grad():
        expected = model(**batch).logits
        model, batch = model.to(DEVICE), {name: value.to(DEVICE) for name, value in batch.items()}
        found = model(**batch).logits
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            half = model(**batch).logits
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(half.float().cpu(), expected, atol=2e-2, rtol=0)


def test_evaluation_ablation_and_robustness_agree(evaluate_on_both, tiny_run):
    for words, name in ((["--ablation"], "ablation.json"), (["--robustness"], "robustness.json")):
        on_cpu, on_gpu = evaluate_on_both(tiny_run.path, *words, keep=(tiny_run.path / name).read_text)
        figures, expected = flatten(json.loads(on_gpu)), flatten(json.loads(on_cpu))
        assert figures.keys() == expected.keys()
        assert figures == pytest.approx(expected, abs=1e-4)


def flatten(values, name=""):
    """{path: number} of nested JSON, without its words."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        return {path: number for key, value in items for path, number in flatten(value, f"{name}/{key}").items()}
    return {name: values} if isinstance(values, int | float) else {}


def test_predictions_agree(evaluate_on_both, tiny_run, tiny_pairs, tmp_path):
    output = tmp_path / "answers.txt"
    words = ["--predict", tiny_pairs / "train.txt", "--output", output, "--contributions"]
    on_cpu, on_gpu = evaluate_on_both(tiny_run.path, *words, keep=lambda: read_probabilities(*tmp_path.glob("*.csv")))
    assert_near(on_gpu, on_cpu, 1e-4)


@pytest.mark.parametrize("words", [["--fusion", "early"], ["--fusion", "attn", "--unfreeze_last", "1"]])
def test_training_on_features_agrees(train_on_both, words):
    freeze = ["--freeze", "both"] if "--unfreeze_last" not in words else []
    layers = {"num_hidden_layers": 2, "attention_dropout": 0.0}
    on_cpu, on_gpu = train_on_both(*words, *freeze, "--cache_features", "true", options=layers)
    assert logged_losses(on_gpu) == pytest.approx(logged_losses(on_cpu), abs=1e-4)


def test_sweep_agrees(pairs, tmp_path):
    write_clip(tmp_path / "clip", pairs, tiny=True)
    recipe = {"data_dir": str(pairs), "model": "clip", "clip_name": str(tmp_path / "clip"), "val_ratio": 0.25}
    recipe |= {"num_train_epochs": 2, "head_learning_rate": 0.01, "fusion_dropout": 0, "tf32": False}
    recipe |= {"report_to": "none", "sweep": {"fusion": ["early", "attn"], "seed": [1, 2]}}
    (tmp_path / "heads.yaml").write_text(yaml.safe_dump(recipe))
    found = []
    for name, device in (("cpu", ON_CPU), ("gpu", [])):
        folders = ["--output_dir", str(tmp_path / name), "--cache_dir", str(tmp_path / f"cache-{name}")]
        train.main(["--sweep", str(tmp_path / "heads.yaml"), *folders, *device])
        found.append([read_probabilities(path) for path in sorted((tmp_path / name / "predictions").glob("0*.csv"))])
    assert len(found[0]) == 8  # after the best and after the last epoch
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert_near(on_gpu, on_cpu, 1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_agree(pairs, flags, evaluate_on_both, tmp_path, workers):
    words = ["--data_dir", str(pairs), "--output_dir", str(tmp_path / "shards"), "--val_ratio", "0.25"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--preprocessing_num_workers", "1", "--rows_per_shard", "16"]
    assert shard.main(words) == 0
    streamed = ["--streaming", "--data_dir", str(tmp_path / "shards"), "--dataloader_num_workers", str(workers)]
    runs = [tmp_path / "cpu", tmp_path / "gpu"]
    for run, device in zip(runs, (ON_CPU, []), strict=True):
        words = flags(run)[1:]
        at = words.index("--val_ratio")  # the shards hold the split
        train.main([*words[:at], *words[at + 2 :], *UPDATES, *streamed, *device])
    assert logged_losses(runs[1]) == pytest.approx(logged_losses(runs[0]), abs=1e-4)

    output = tmp_path / "answers.txt"
    predict = ["--streaming", "--predict", tmp_path / "shards" / "train-*.parquet", "--output", output]
    predict += ["--dataloader_num_workers", workers]
    on_cpu, on_gpu = evaluate_on_both(runs[0], *predict, keep=lambda: read_probabilities(*tmp_path.glob("*.csv")))
    assert_near(on_gpu, on_cpu, 1e-4)
