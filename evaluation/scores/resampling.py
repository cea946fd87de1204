"""Scores of rows that count several times, so that many resamples are scored at once. Legend: N rows, R resamples.

Weights (R, N) say how often each row counts; ones give the score itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]  # (R,) each
MAX_CELLS, MAX_WORK = 4_000_000, 2_000_000_000  # of an array in memory; of rows times resamples times classes


def resample(score: Callable[[Floats], Scores], num_rows: int, *, cost: int = 1) -> dict[str, Floats]:
    """Scores of 2000 resamples of the rows with replacement, of 200 at the least where a row costs much."""
    rng, num_resamples = np.random.default_rng(0), int(np.clip(MAX_WORK // (num_rows * cost), 200, 2000))
    size, found = max(1, MAX_CELLS // num_rows), []
    for start in range(0, num_resamples, size):
        drawn = rng.integers(num_rows, size=(min(size, num_resamples - start), num_rows))
        found.append(score(np.stack([np.bincount(each, minlength=num_rows) for each in drawn]).astype(float)))
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def find_intervals(samples: Scores) -> dict[str, tuple[float, float] | None]:
    """95 % percentile intervals (Efron and Tibshirani 1993, section 13.3); None for what no resample defines."""
    known = {name: values[~np.isnan(values)] for name, values in samples.items()}
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) if len(values) else None
        for name, values in known.items()
    }


def mid_ranks(values: Floats, weights: Floats) -> Floats:
    """Ranks (R, N) of values (N,) from 1, ties sharing the mean of theirs."""
    groups, order, starts = _group(values)
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    return (totals.cumsum(axis=1) - (totals - 1) / 2)[:, groups]


def correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's r (R,) of x and y, (N,) or (R, N) each; nan where one of them is constant."""
    x, y = (each - (weights * each).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True) for each in (x, y))
    product, *squares = ((weights * pair).sum(axis=1) for pair in (x * y, x * x, y * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return product / np.sqrt(squares[0] * squares[1])


def auroc(positive: Floats, values: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve (R,), from the rank sum of the positive rows; nan without both kinds."""
    ones = weights @ positive
    with np.errstate(invalid="ignore", divide="ignore"):
        rank_sum = (weights * mid_ranks(values, weights)) @ positive
        return (rank_sum - ones * (ones + 1) / 2) / (ones * (weights.sum(axis=1) - ones))


def average_precision(positive: Floats, values: Floats, weights: Floats) -> Floats:
    """Average precision (R,) as scikit-learn defines it: no interpolation, ties answered together; nan without ones."""
    _, order, starts = _group(-values)
    hits, totals = (np.add.reduceat(each[:, order], starts, axis=1) for each in (weights * positive, weights))
    precision = hits.cumsum(axis=1) / np.maximum(totals.cumsum(axis=1), 1)
    with np.errstate(invalid="ignore"):
        return (hits * precision).sum(axis=1) / hits.sum(axis=1)


def _group(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Group numbers (N,) of equal values, rising; an order of rows by them; where each group begins in that."""
    groups = np.unique(values, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    return groups, order, np.searchsorted(groups[order], np.arange(groups.max() + 1))
