"""The shipped sweep of six heads, with three seeds each, over frozen features."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.loader import TINY_CLIP
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import time_of

RECIPE = "configs/sweep_heads.yaml"
TARGET, GPU_TARGET = 90.0, 20.0
MOST_REPEATS = 2


def measure(setting: Setting) -> list[Result]:
    """Seconds of whole launches, imports included; the first one, with the pass of the towers, isn't counted."""
    repeats = 1 if setting.quick else min(setting.repeats, MOST_REPEATS)
    values = [time_sweep(setting) for _ in range(repeats + 1)][1:]
    return [to_result("sweep of heads", values, setting, TARGET)]


def measure_gpu(setting: Setting) -> Iterator[Result]:
    """Seconds of a launch, imports included, that finds prepared pairs and no features."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        fresh = replace(setting, work_dir=Path(folder))
        with fresh.assemble(*TINY_CLIP) as (_, prepared):  # prepares the pairs, which isn't counted
            name = f"features of {len(prepared.rows):,} pairs and sweep of heads"
        yield to_result(name, [time_sweep(fresh, "--bf16", "true")], setting, GPU_TARGET)


def time_sweep(setting: Setting, *flags: str) -> float:
    """Seconds of one sweep in a process of its own."""
    few_epochs = ("--num_train_epochs", "1") if setting.quick else ()
    words = ("train.py", "--sweep", RECIPE, *setting.flags(*few_epochs, *flags))
    return time_of(partial(setting.launch, *words))


def to_result(name: str, seconds: list[float], setting: Setting, target: float) -> Result:
    """The figure of some launches."""
    epochs = 1 if setting.quick else 10
    note = f"6 heads x 3 seeds x {epochs} epochs, a launch from its first import to its last table"
    return Result(name, seconds, "s", target=target, at_least=False, note=note)
