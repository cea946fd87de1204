"""Frozen features and the shipped sweep of six heads, over prepared pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.loader import TINY_CLIP
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.sweep import launch
from benchmarks.turns import time_of

TARGET = 20.0


def measure(setting: Setting) -> Iterator[Result]:
    """Seconds of a launch whose towers run, imports included, and of the same one over cached features."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        fresh = replace(setting, work_dir=Path(folder))
        with fresh.assemble(*TINY_CLIP) as (_, prepared):  # prepares the pairs, which isn't counted
            num_rows = len(prepared.rows)
        run = partial(launch, fresh, "--bf16", "true")
        epochs = 1 if setting.quick else 10
        note = f"6 heads x 3 seeds x {epochs} epochs, a launch from its first import to its last table"
        name = f"features of {num_rows:,} pairs and sweep of heads"
        yield Result(name, [time_of(run)], "s", target=TARGET, at_least=False, note=note)
        yield Result("sweep of heads over cached features", [time_of(run)], "s")
