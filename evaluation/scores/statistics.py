"""Intervals for what a finite set of rows can say.

Legend: N rows, C classes, K kinds of rows, R resamples, S models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]


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
    (known, *answers), counts = np.unique(rows, axis=1, return_counts=True)  # (1 + S, K), (K,)
    resampled = np.random.default_rng(seed).multinomial(rows.shape[1], counts / rows.shape[1], size=num_resamples)
    values = {"accuracy": np.zeros(num_resamples), "macro_f1": np.zeros(num_resamples)}
    for each in answers:
        values["accuracy"] += resampled @ (known == each) / rows.shape[1] / len(answers)
        values["macro_f1"] += macro_f1_of_counts(resampled, known, each, num_classes) / len(answers)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    return {name: tuple(np.quantile(value, tails).tolist()) for name, value in values.items()}


def macro_f1_of_counts(counts: Integers, labels: Integers, answers: Integers, num_classes: int) -> NDArray[np.float64]:
    """Counts (R, K) of kinds of rows with their labels (K,) and answers (K,) -> (R,); F1 of an absent class is 0."""
    labels, answers = np.eye(num_classes, dtype=np.int64)[[labels, answers]]  # (K, C) each
    return (2 * (counts @ (labels * answers)) / np.maximum(counts @ (labels + answers), 1)).mean(axis=1)
