"""Intervals for what a finite set of rows can say. Legend: N rows, C classes, R resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bootstrap_intervals(
    predictions: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over rows of accuracy and macro F1 (Efron and Tibshirani 1993, section 13.3).

    Both metrics depend on the rows only through the confusion matrix, and N rows drawn with replacement fill its cells
    with counts from a multinomial distribution: drawing the counts is resampling the rows, at C * C numbers a resample.
    The intervals are about rows of the same source; they don't hold the variance of training or of model selection.

    Args:
        predictions: (N,) class ids, N >= 1.
        labels: (N,) class ids.
        num_classes: C; every class enters the macro F1, as in `classification_metrics`.
        num_resamples: R.
        confidence: coverage, in (0, 1).
        seed: of the resampling alone; no global random state is read or changed.

    Returns:
        {"accuracy": (low, high), "macro_f1": (low, high)}
    """
    cells = np.asarray(labels) * num_classes + np.asarray(predictions)
    counts = np.bincount(cells, minlength=num_classes**2)
    num_rows = int(counts.sum())
    resampled = np.random.default_rng(seed).multinomial(num_rows, counts / num_rows, size=num_resamples)
    matrices = resampled.reshape(num_resamples, num_classes, num_classes)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    values = {"accuracy": _accuracy(matrices), "macro_f1": _macro_f1(matrices)}
    return {name: tuple(np.quantile(value, tails).tolist()) for name, value in values.items()}


def _accuracy(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusion matrices (R, C, C) -> (R,)."""
    return np.trace(matrices, axis1=1, axis2=2) / matrices.sum(axis=(1, 2))


def _macro_f1(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusion matrices (R, C, C) -> (R,); F1 of a class in neither rows nor columns is 0."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)  # (R, C)
    support_and_predicted = matrices.sum(axis=2) + matrices.sum(axis=1)  # (R, C)
    return (2 * hits / np.maximum(support_and_predicted, 1)).mean(axis=1)
