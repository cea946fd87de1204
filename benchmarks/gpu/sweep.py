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
    """Seconds of a launch, imports included, that finds prepared pairs and no features."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        fresh = replace(setting, work_dir=Path(folder))
        with fresh.assemble(*TINY_CLIP) as (_, prepared):  # prepares the pairs, which isn't counted
            num_rows = len(prepared.rows)
        epochs = 1 if setting.quick else 10
        note = f"6 heads x 3 seeds x {epochs} epochs, a launch from its first import to its last table"
        name = f"features of {num_rows:,} pairs and sweep of heads"
        seconds = time_of(partial(launch, fresh, "--bf16", "true"))
        yield Result(name, [seconds], "s", target=TARGET, at_least=False, note=note)
