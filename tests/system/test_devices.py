"""What concerns GPUs and can be told without one; the rest is in tests/gpu."""

from __future__ import annotations

import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from launching import too_large_batch

import train
from data_utils.system.device_copies import can_pin
from data_utils.system.refusals import describe_refusal
from evaluation.tasks.session import choose_precision
from training.experiments import training
from training.flags.arguments import SentimentTrainingArguments
from training.runs.run import count_skipped


def test_a_launch_on_the_cpu_leaves_the_gpu_alone(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert can_pin()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # as cpu.yaml sets it
    args = SentimentTrainingArguments(report_to="none")
    assert args.use_cpu
    assert args.device.type == "cpu"
    assert not args.dataloader_pin_memory
    assert not can_pin()


def test_kernels_are_deterministic_before_frozen_towers_run(monkeypatch, run_train):
    found, use_features = [], training.use_features

    def note(*args, **kwargs):
        found.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return use_features(*args, **kwargs)

    monkeypatch.setattr(training, "use_features", note)
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    try:
        run_train("--freeze", "both", "--full_determinism", "--max_steps", "1")
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
    assert found == [(True, ":16:8")]


@pytest.mark.parametrize(("launcher", "trained"), [("no", "fp8"), ("fp8", "no")])
def test_float8_is_for_training_alone(monkeypatch, launcher, trained):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    run, flags = SimpleNamespace(environment={"mixed_precision": trained}), SimpleNamespace(mixed_precision=None)
    assert choose_precision(run, flags) == "bf16"


@pytest.mark.parametrize(
    ("make", "is_new", "expected"),
    [
        (partial(torch.optim.AdamW, fused=False), False, 3),
        (partial(torch.optim.AdamW, fused=True), False, 3),
        (partial(torch.optim.AdamW, fused=True), True, None),
        (torch.optim.SGD, False, None),
    ],
)
def test_updates_that_the_scaler_left_out_are_counted(make, is_new, expected):
    parameter, scaler = torch.nn.Parameter(torch.zeros(1)), torch.amp.GradScaler("cpu")
    optimizer = make([parameter], lr=1.0)
    for update in range(10):
        scaler.scale(parameter.sum()).backward()
        if update < 3:
            parameter.grad[:] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    args, state = SimpleNamespace(fp16=True), SimpleNamespace(global_step=10)
    trainer = SimpleNamespace(
        args=args, is_deepspeed_enabled=False, state=state, optimizer=optimizer, optimizer_is_new=is_new
    )
    assert count_skipped(trainer) == expected
    args.fp16 = False
    assert count_skipped(trainer) == 0


def test_a_batch_too_large_for_the_machine_is_one_sentence(make_pairs, tmp_path, refusal):
    sentence = refusal(train.main, too_large_batch(make_pairs, tmp_path / "run"), code=1)
    assert sentence.startswith("error: The system refuses what is needed (")
    assert "--gradient_accumulation_steps" in sentence


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_full_gpu_is_told_as_such(error):
    sentence = describe_refusal(error)
    assert "The GPU's memory is full" in sentence
    assert "--per_device_train_batch_size" in sentence
