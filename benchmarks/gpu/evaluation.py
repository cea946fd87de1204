"""Prediction, ablation and the pass of frozen towers over all pairs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import features
from benchmarks.evaluation import measure_rows
from benchmarks.results import Result
from benchmarks.setting import Setting

ROWS = 3600
BATCH_SIZE = 256
PRECISION = ("--bf16", "true")


def measure(setting: Setting) -> Iterator[Result]:
    """As on the CPU, with more rows in larger batches."""
    yield from features.measure(setting, *PRECISION, num_rows=ROWS)
    yield from measure_rows(setting, *PRECISION, num_rows=ROWS, batch_size=BATCH_SIZE)
