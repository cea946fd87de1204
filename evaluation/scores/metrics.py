"""Classification metrics of this project as an `evaluate.Metric` that needs no network and leaves no files.

Legend: N rows, C classes, M bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

NUM_CALIBRATION_BINS = 15
# The scores that stand in tables, and their titles there; of some the tables have intervals too.
SCORES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted-F1", "ece": "ECE"}
INTERVAL_SCORES = ("accuracy", "macro_f1")

_DESCRIPTION = """
Accuracy, macro and weighted F1, precision, recall and F1 per class, the confusion matrix and the expected calibration
error of a classifier that gives a probability per class.
"""
_CITATION = """
@inproceedings{guo2017calibration, title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.}, booktitle={ICML}, year={2017}}
"""


class SentimentMetrics(evaluate.Metric):
    """`classification_metrics` behind the interface of the `evaluate` library.

    Predictions are class probabilities (N, C), references are class ids (N,). By default everything is kept in memory,
    so parallel ranks and read-only home folders are no concern; with `num_process` > 1 pass `keep_in_memory=False`.
    """

    def __init__(self, label_names: Sequence[str], *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        self.label_names = tuple(label_names)
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        features = Features({"predictions": List(Value("float64")), "references": Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation=_CITATION, features=features)

    def _build_data_dir(self) -> str:
        # The library makes a cache folder even for a metric that is kept in memory.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def _compute(self, *, predictions: ArrayLike, references: ArrayLike) -> dict[str, Any]:
        return classification_metrics(predictions, references, self.label_names)


def classification_metrics(probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of the most probable class against the labels, ready for JSON.

    Every class of `label_names` enters the macro F1, as in scikit-learn with `labels=range(C)` and `zero_division=0`:
    a class that is neither among the labels nor among the predictions counts with F1 = 0. The prediction of a row is
    its first most probable class.

    Args:
        probabilities: (N, C) class probabilities, N >= 1.
        labels: (N,) class ids in [0, C).
        label_names: the C classes' names, in the order of their ids.

    Returns:
        num_rows, accuracy, macro_f1, weighted_f1, ece, per_class {name: precision, recall, f1, support},
        confusion_matrix (C rows of the true class, C columns of the predicted one) and label_names.

    Raises:
        ValueError: shapes that don't fit, no row, a label outside [0, C) or a probability that is not finite.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    _check_inputs(probabilities, labels, len(label_names))
    predictions = probabilities.argmax(axis=1)
    class_ids = list(range(len(label_names)))
    per_class = precision_recall_fscore_support(labels, predictions, labels=class_ids, zero_division=0)
    _, _, f1, support = per_class
    return {
        "num_rows": len(labels),
        "accuracy": float((predictions == labels).mean()),
        "macro_f1": float(np.average(f1)),
        "weighted_f1": float(np.average(f1, weights=support)),
        "ece": expected_calibration_error(probabilities, labels),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(label_names, *per_class, strict=True)
        },
        "confusion_matrix": confusion_matrix(labels, predictions, labels=class_ids).tolist(),
        "label_names": list(label_names),
    }


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, num_bins: int = NUM_CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over M equal bins of confidence (Guo et al. 2017, equation 3)."""
    confidence, correct, bins = bin_rows(probabilities, labels, num_bins)
    # A bin's share of rows times its |accuracy - confidence| is |sum of (correct - confidence)| / N.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def bin_rows(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], num_bins: int = NUM_CALIBRATION_BINS
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Confidence, which is a row's largest probability, whether it is the label's, and its bin from 0: (N,) each.

    Bin m holds the rows with confidence in (m/M, (m+1)/M].
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return confidence, correct, np.digitize(confidence, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)


def _check_inputs(probabilities: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> None:
    if labels.ndim != 1 or probabilities.shape != (len(labels), num_classes) or len(labels) == 0:
        raise ValueError(
            f"Got probabilities of shape {probabilities.shape} and labels of shape {labels.shape}; "
            f"expected (N, {num_classes}) and (N,) with at least one row."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Got labels from {labels.min()} to {labels.max()}; allowed are 0 to {num_classes - 1}. "
            "Leave out the rows without a label."
        )
    num_bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if num_bad:
        raise ValueError(
            f"{num_bad} of {len(labels)} rows have a probability that is not finite; the model's weights or its "
            "mixed precision are at fault: try --mixed_precision no."
        )
