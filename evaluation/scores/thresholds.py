"""From which probability on a multi-label answer has a class. Legend: N rows, C classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_utils.prepare.columns import is_labelled
from modeling.choices import DEFAULT_THRESHOLD

Floats = NDArray[np.float64]
NUM_PARTS = 5  # of the rows, each judged by thresholds of the others


def choose_thresholds(probabilities: Floats, labels: Floats) -> Floats:
    """For each class, (C,), the threshold that maximises F1 on the rows, (N, C) each; 0.5 where none is positive.

    It lies midway between two of the probabilities, and is the highest of several.
    """
    thresholds = np.full(probabilities.shape[1], DEFAULT_THRESHOLD)
    for column, (values, positive) in enumerate(zip(probabilities.T, labels.T, strict=True)):
        order = np.argsort(-values, kind="stable")
        values, hits = np.append(values[order], 0.0), positive[order].cumsum()
        f1 = np.where(values[:-1] > values[1:], 2 * hits / (np.arange(len(order)) + 1 + positive.sum()), 0)
        if f1.size and f1.max() > 0:
            best = int(f1.argmax())
            thresholds[column] = (values[best] + values[best + 1]) / 2
    return thresholds


def cross_fit_thresholds(probabilities: Floats, labels: Floats) -> Floats:
    """Thresholds (N, C) for each row, chosen on the labelled rows of the other parts: figures by them are honest."""
    parts, known = np.arange(len(labels)) % NUM_PARTS, is_labelled(labels)
    thresholds = np.empty_like(probabilities)
    for part in range(NUM_PARTS):
        others = known & (parts != part)
        thresholds[parts == part] = choose_thresholds(probabilities[others], labels[others])
    return thresholds


def answer_rows(probabilities: ArrayLike, labels: ArrayLike, thresholds: Floats | None = None) -> NDArray:
    """Answers in the form of the labels, which name the task: class ids (N,), ones and zeros (N, C), or numbers (N,).

    Args:
        probabilities: (N, C); of a regression the numbers, (N, 1).
        labels: of N rows; only cross-fitting reads what they say.
        thresholds: (C,) or (N, C) of a multi-label task; None: `cross_fit_thresholds`.
    """
    values, known = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if known.dtype.kind == "i":
        return values.argmax(axis=1)
    if known.ndim == 1:
        return values[:, 0]
    return (values >= (cross_fit_thresholds(values, known) if thresholds is None else thresholds)).astype(np.float64)
