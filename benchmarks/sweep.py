"""The shipped sweep of six heads, with three seeds each, over features that are cached already."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import time_of

RECIPE = "configs/sweep_heads.yaml"
TARGET = 90.0
MOST_REPEATS = 2
ROOT = Path(__file__).resolve().parent.parent


def measure(setting: Setting) -> list[Result]:
    """Seconds of whole launches, imports included; the first one, with the pass of the towers, isn't counted."""
    repeats = 1 if setting.quick else min(setting.repeats, MOST_REPEATS)
    values = [time_of(partial(launch, setting)) for _ in range(repeats + 1)][1:]
    epochs = 1 if setting.quick else 10
    note = f"6 heads x 3 seeds x {epochs} epochs, a launch from its first import to its last table"
    return [Result("sweep of heads", values, "s", target=TARGET, at_least=False, note=note)]


def launch(setting: Setting, *flags: str) -> None:
    """One sweep in a process of its own."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as output:
        few_epochs = ["--num_train_epochs", "1"] if setting.quick else []
        flags = setting.flags("--output_dir", f"{output}/sweep", *few_epochs, *flags)
        command = [sys.executable, "train.py", "--sweep", RECIPE, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
