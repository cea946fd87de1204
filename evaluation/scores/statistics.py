"""Intervals for what a finite set of rows can say. Legend: N rows, C classes, R resamples, S models."""

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

    The metrics depend on the rows only through how many there are of each kind (label and answers), and N rows drawn
    with replacement fill the kinds with counts from a multinomial distribution: drawing the counts is resampling the
    rows, at a number per kind and resample. The intervals are about rows of the same source; they don't hold the
    variance of training or of model selection.

    Args:
        predictions: (N,) class ids, N >= 1; or (S, N), for the mean of the metrics of S models of the same rows.
        labels: (N,) class ids.
        num_classes: C; every class enters the macro F1, as in `classification_metrics`.
        num_resamples: R.
        confidence: coverage, in (0, 1).
        seed: of the resampling alone; no global random state is read or changed.

    Returns:
        {"accuracy": (low, high), "macro_f1": (low, high)}
    """
    rows = np.vstack([labels, predictions])  # (1 + S, N)
    kinds, counts = np.unique(rows, axis=1, return_counts=True)  # (1 + S, K), (K,)
    resampled = np.random.default_rng(seed).multinomial(rows.shape[1], counts / rows.shape[1], size=num_resamples)
    values = {"accuracy": np.zeros(num_resamples), "macro_f1": np.zeros(num_resamples)}
    for answers in kinds[1:]:
        cells = np.eye(num_classes**2, dtype=np.int64)[kinds[0] * num_classes + answers]  # (K, C * C)
        matrices = (resampled @ cells).reshape(num_resamples, num_classes, num_classes)
        values["accuracy"] += _accuracy(matrices) / (len(kinds) - 1)
        values["macro_f1"] += _macro_f1(matrices) / (len(kinds) - 1)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    return {name: tuple(np.quantile(value, tails).tolist()) for name, value in values.items()}


def _accuracy(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusion matrices (R, C, C) -> (R,)."""
    return np.trace(matrices, axis1=1, axis2=2) / matrices.sum(axis=(1, 2))


def _macro_f1(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusion matrices (R, C, C) -> (R,); F1 of a class in neither rows nor columns is 0."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)  # (R, C)
    support_and_predicted = matrices.sum(axis=2) + matrices.sum(axis=1)  # (R, C)
    return (2 * hits / np.maximum(support_and_predicted, 1)).mean(axis=1)
