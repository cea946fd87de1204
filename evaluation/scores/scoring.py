"""From class probabilities to the figures that are printed and saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data_utils.prepare.columns import NO_LABEL_ID
from evaluation.scores.metrics import SentimentMetrics
from evaluation.scores.statistics import bootstrap_intervals
from modeling.errors import InputError


def score_predictions(probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str]) -> dict[str, Any]:
    """`classification_metrics` of the labelled rows, with 95 % intervals beside accuracy and macro F1.

    Args:
        probabilities: (N, C) class probabilities.
        labels: (N,) class ids; rows labelled -100 are left out.
        label_names: the C classes' names.

    Returns:
        The metrics, accuracy_interval and macro_f1_interval ([low, high]), and majority_baseline {label, accuracy}:
        the score of always answering the class that is most frequent among these very rows.

    Raises:
        InputError: no row has a label.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    labelled = labels != NO_LABEL_ID
    if not labelled.any():
        raise InputError(f"None of the {len(labels)} rows has a label, so there is nothing to score.")
    probabilities, labels = probabilities[labelled], labels[labelled]
    metrics = SentimentMetrics(label_names).compute(predictions=probabilities, references=labels)
    intervals = bootstrap_intervals(probabilities.argmax(axis=1), labels, len(label_names))
    counts = np.bincount(labels, minlength=len(label_names))
    return metrics | {
        "accuracy_interval": list(intervals["accuracy"]),
        "macro_f1_interval": list(intervals["macro_f1"]),
        "majority_baseline": {
            "label": label_names[int(counts.argmax())],
            "accuracy": float(counts.max() / counts.sum()),
        },
    }
