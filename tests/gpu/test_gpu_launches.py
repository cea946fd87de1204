"""Every launch on a GPU: the losses and weights of one process, a checkpoint, and on from it; evaluate.py; no room."""

import importlib.util
import json
import shutil

import pytest
import torch
from launching import launch, launcher, load_weights, logged_losses, needs_compiler, needs_cuda, too_large_batch

pytestmark = pytest.mark.gpu

RHYTHM = ["--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3", "--save_strategy", "steps"]
RHYTHM += ["--save_steps", "3"]
TWO_RANKS = ["--per_device_train_batch_size", "4", "--ddp_backend", "gloo"]  # NCCL takes one rank a GPU
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="no deepspeed here")
LAUNCHES = [
    pytest.param("single_gpu", None, [], id="single_gpu"),
    pytest.param("multi_gpu", 1, [], id="multi_gpu", marks=needs_cuda(reason="NCCL is for GPUs")),
    pytest.param("multi_gpu", 2, TWO_RANKS, id="multi_gpu-2-ranks-on-one-gpu"),
    *(
        pytest.param(config, 1, [], id=config, marks=[needs_deepspeed, needs_compiler])
        for config in ("zero1", "zero2", "zero3", "zero3_offload")
    ),
    pytest.param("fsdp2", 1, [], id="fsdp2", marks=needs_cuda(reason="refused on the CPU; see test_fsdp.py")),
    pytest.param(
        *("fp8", 1, []),
        id="fp8",
        marks=[
            needs_cuda(reason="float8 needs a GPU"),
            pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="float8 needs the package torchao"),
        ],
    ),
]


@pytest.fixture(scope="module")
def reference(train_here, tmp_path_factory):
    """The run folder of one process, trained in this one."""
    return train_here(tmp_path_factory.mktemp("reference") / "run", *RHYTHM)


@pytest.fixture(autouse=True)
def _rank_1_shares_the_gpu(monkeypatch):
    """Or accelerate would have DistributedDataParallel look for a second one."""
    monkeypatch.setenv("ACCELERATE_BYPASS_DEVICE_MAP", "true")


@pytest.mark.parametrize(("config", "ranks", "more"), LAUNCHES)
def test_launch_trains_and_goes_on_as_one_process(config, ranks, more, reference, train_as, tmp_path):
    if config == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 needs a GPU of compute capability 8.9")
    whole = train_as(config, ranks, tmp_path / "whole", *RHYTHM, *more)
    resume = ["--resume_from_checkpoint", str(whole / "checkpoints" / "checkpoint-3")]
    resumed = train_as(config, ranks, tmp_path / "resumed", *RHYTHM, *more, *resume)
    expected = logged_losses(reference)
    assert len(set(expected.values())) == 6
    in_float8 = config == "fp8"
    for run in (whole, resumed):
        assert logged_losses(run) == pytest.approx(expected, abs=0.1 if in_float8 else 1e-5)
        weights = load_weights(run)
        for name, value in load_weights(reference).items():
            # Six updates of up to 1e-3. Where a gradient is 0 but for rounding, AdamW makes as much of that.
            torch.testing.assert_close(weights[name], value, atol=1e-2 if in_float8 else 1e-3, rtol=0)


@pytest.mark.parametrize(("on_cpu", "device"), [("False", "cuda:0"), ("True", "cpu")], ids=["single_gpu", "cpu"])
def test_launch_takes_the_device_of_its_file(on_cpu, device, train_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", on_cpu)  # as the launcher sets it
    train_here(tmp_path / "run", "--dry_run")
    device = device if torch.cuda.is_available() else "cpu"
    assert f"1: 1 x {device}" in capsys.readouterr().out


def test_evaluation_scores_as_training_did(reference, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    launch(launcher("single_gpu"), "evaluate.py", str(run), "--ablation")
    trained = json.loads((run / "metrics.json").read_text())["val"]
    scored = json.loads((run / "ablation.json").read_text())["inputs"]["full"]
    for name in ("accuracy", "macro_f1", "confusion_matrix"):
        assert scored[name] == trained[name]


def test_prediction_answers_every_row(reference, pairs, tmp_path):
    output = tmp_path / "answers.txt"
    words = ["--predict", str(pairs / "test_without_label.txt"), "--output", str(output)]
    launch(launcher("single_gpu"), "evaluate.py", str(reference), *words)
    assert len(output.read_text().splitlines()) == 1 + 10


@pytest.mark.parametrize("command", [["python"], launcher("multi_gpu", 2)], ids=["1-rank", "2-ranks"])
def test_a_batch_too_large_for_the_device_is_told_once_with_the_remedy(command, make_pairs, tmp_path):
    more = ["--ddp_backend", "gloo"] if command != ["python"] else []
    screen = launch(command, "train.py", *too_large_batch(make_pairs, tmp_path / "run"), *more, code=1)
    errors = [line for line in screen.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "--gradient_accumulation_steps" in errors[0]
    if torch.cuda.is_available():
        assert "The GPU's memory is full" in errors[0]
