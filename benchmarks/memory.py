"""Memory and time to the first step of streamed training, on many rows against few."""

from __future__ import annotations

from benchmarks import scale
from benchmarks.results import Result
from benchmarks.setting import Setting

NUM_ROWS, QUICK_NUM_ROWS = (2_000, 200_000), (200, 1_000)
MOST_REPEATS = 3
TARGET = 1.1


def measure(setting: Setting) -> list[Result]:
    """The ratios of `benchmarks.scale`, which makes its own data; each value is one of medians already."""
    few, many = QUICK_NUM_ROWS if setting.quick else NUM_ROWS
    steps, repeats = (20, 1) if setting.quick else (300, min(setting.repeats, MOST_REPEATS))
    ratios = scale.measure((few, many), steps=steps, repeats=repeats)["ratios"]
    note = f"{many:,} rows by {few:,}, ratio of medians over {repeats} processes each"
    return [
        Result("resident memory", [ratios["peak"]], "times", target=TARGET, at_least=False, note=note),
        Result("time to the first step", [ratios["first_step"]], "times", target=TARGET, at_least=False, note=note),
    ]
