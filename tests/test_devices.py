"""What concerns GPUs and can be told without one; the rest is in tests/gpu."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from data_utils.device_copies import can_pin
from evaluation.session import choose_precision
from training import experiment
from training.arguments import SentimentTrainingArguments
from training.run import count_skipped


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
    found, use_features = [], experiment.use_features

    def note(*args, **kwargs):
        found.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return use_features(*args, **kwargs)

    monkeypatch.setattr(experiment, "use_features", note)
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


@pytest.mark.parametrize(("kind", "expected"), [("cosine", 3), ("reduce_lr_on_plateau", None)])
def test_skipped_updates_are_those_that_the_schedule_didnt_follow(kind, expected):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=10)
    args = SimpleNamespace(fp16=True, lr_scheduler_type=SchedulerType(kind))
    trainer = SimpleNamespace(
        args=args, is_deepspeed_enabled=False, state=SimpleNamespace(global_step=10), lr_scheduler=schedule
    )
    if expected is not None:
        optimizer.step()
        for _ in range(10 - expected):
            schedule.step()
    assert count_skipped(trainer) == expected
    args.fp16 = False
    assert count_skipped(trainer) == 0
