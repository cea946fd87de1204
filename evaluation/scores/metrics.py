"""Figures of class probabilities against labels, and intervals for what a finite set of rows can say.

What a classifier is judged by, and which scores stand in tables, is said here alone.
Legend: N rows, C classes, K kinds of rows, M bins of confidence, R resamples, S models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Features, List, Value
from evaluate.info import MetricInfo
from evaluate.module import Metric
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from data_utils.prepare.columns import NO_LABEL_ID
from modeling.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUM_BINS = 15  # of confidence
# The scores that stand in tables, and their titles there; of some the tables have intervals too.
SCORES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted-F1", "ece": "ECE"}
INTERVAL_SCORES = ("accuracy", "macro_f1")


class SentimentMetrics(Metric):
    """`classification_metrics` of probabilities (N, C) and class ids (N,), as an `evaluate.Metric`.

    By default everything is kept in memory, so parallel ranks and read-only home folders are no concern; with
    `num_process` > 1 pass `keep_in_memory=False`.
    """

    def __init__(self, label_names: Sequence[str], *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        self.label_names = tuple(label_names)
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> MetricInfo:
        features = Features({"predictions": List(Value("float64")), "references": Value("int64")})
        citation = "Guo, Pleiss, Sun, Weinberger (2017): On Calibration of Modern Neural Networks. ICML."
        return MetricInfo(description="Accuracy, F1, confusion, calibration", citation=citation, features=features)

    def _build_data_dir(self) -> str:
        # The library makes a cache folder even for a metric that is kept in memory.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def _compute(self, *, predictions: ArrayLike, references: ArrayLike) -> dict[str, Any]:
        return classification_metrics(predictions, references, self.label_names)


def classification_metrics(probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str]) -> dict[str, Any]:
    """Metrics, ready for JSON, of the first most probable class of the rows of `take_labelled`.

    Every class of `label_names` enters the macro F1, as in scikit-learn with `labels=range(C)` and `zero_division=0`:
    a class that is neither among the labels nor among the predictions counts with F1 = 0.

    Returns:
        num_rows, accuracy, macro_f1, weighted_f1, ece, per_class {name: precision, recall, f1, support},
        confusion_matrix (C rows of the true class, C columns of the predicted one) and label_names.
    """
    values, known, _ = take_labelled(probabilities, labels)
    if values.shape[1] != len(label_names):
        raise ValueError(f"Got probabilities of shape {values.shape} for the classes {', '.join(label_names)}.")
    predictions, class_ids = values.argmax(axis=1), list(range(len(label_names)))
    per_class = precision_recall_fscore_support(known, predictions, labels=class_ids, zero_division=0)
    _, _, f1, support = per_class
    return {
        "num_rows": len(known),
        "accuracy": float((predictions == known).mean()),
        "macro_f1": float(np.average(f1)),
        "weighted_f1": float(np.average(f1, weights=support)),
        "ece": expected_calibration_error(values, known),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(label_names, *per_class, strict=True)
        },
        "confusion_matrix": confusion_matrix(known, predictions, labels=class_ids).tolist(),
        "label_names": list(label_names),
    }


def take_labelled(
    probabilities: ArrayLike, labels: ArrayLike, *others: ArrayLike
) -> tuple[Floats, Integers, list[Integers]]:
    """Probabilities (N, C), class ids (N,) and further columns of integers (N,), of the rows that have a label.

    Raises:
        InputError: no row has one; the label -100 stands for none.
        ValueError: other shapes, or what can't be probabilities and labels.
    """
    values, columns = np.asarray(probabilities, dtype=np.float64), [np.asarray(each) for each in (labels, *others)]
    if values.ndim != 2 or any(column.shape != values.shape[:1] for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns)
        raise ValueError(f"Got probabilities of shape {values.shape} and columns of shapes {shapes}; all need N rows.")
    num_bad = int((~((values >= 0) & (values <= 1 + 1e-6))).any(axis=1).sum())
    if num_bad:
        raise ValueError(
            f"{num_bad} of {len(values)} rows have a probability that is not finite or not between 0 and 1; the "
            "model's weights or its mixed precision are at fault: try --mixed_precision no."
        )
    labelled = columns[0] != NO_LABEL_ID
    if not labelled.any():
        raise InputError(f"None of the {len(values)} rows has a label, so there is nothing to score.")
    known, *rest = (column[labelled].astype(np.int64) for column in columns)
    if known.min() < 0 or known.max() >= values.shape[1]:
        raise ValueError(
            f"Got labels from {known.min()} to {known.max()}; allowed are 0 to {values.shape[1] - 1}, and "
            f"{NO_LABEL_ID} for none."
        )
    return values[labelled], known, rest


def expected_calibration_error(probabilities: Floats, labels: Integers) -> float:
    """Mean gap between confidence and accuracy over M equal bins of confidence (Guo et al. 2017, equation 3)."""
    confidence, correct, bins = bin_rows(probabilities, labels)
    # A bin's share of rows times its |accuracy - confidence| is |sum of (correct - confidence)| / N.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def bin_rows(probabilities: Floats, labels: Integers) -> tuple[Floats, NDArray[np.bool_], Integers]:
    """Confidence, which is a row's largest probability, whether it is the label's, and its bin from 0: (N,) each.

    Bin m holds the rows with confidence in (m/M, (m+1)/M].
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return confidence, correct, np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1)[1:-1], right=True)


def bootstrap_intervals(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int, *, num_resamples: int = 2000
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap over rows of accuracy and macro F1 (Efron and Tibshirani 1993, section 13.3).

    The metrics depend on the rows only through how many there are of each kind (label and answers), and N rows drawn
    with replacement fill the kinds with counts from a multinomial distribution: drawing the counts is resampling the
    rows. The intervals are about rows of the same source; they don't hold the variance of training or of model
    selection.

    Args:
        predictions: (N,) class ids, N >= 1; or (S, N), for the mean of the metrics of S models of the same rows.
        labels: (N,) class ids.
        num_classes: C.
        num_resamples: R.
    """
    rows = np.vstack([labels, predictions])  # (1 + S, N)
    (known, *answers), counts = np.unique(rows, axis=1, return_counts=True)  # (1 + S, K), (K,)
    resampled = np.random.default_rng(0).multinomial(rows.shape[1], counts / rows.shape[1], size=num_resamples)
    values = {name: np.zeros(num_resamples) for name in INTERVAL_SCORES}
    for each in answers:
        values["accuracy"] += resampled @ (known == each) / rows.shape[1] / len(answers)
        values["macro_f1"] += macro_f1_of_counts(resampled, known, each, num_classes) / len(answers)
    # Literally (1 - 0.95) / 2: the quantiles are those of earlier runs to the last bit.
    bounds = {name: np.quantile(value, ((1 - 0.95) / 2, (1 + 0.95) / 2)).tolist() for name, value in values.items()}
    return {name: (low, high) for name, (low, high) in bounds.items()}


def macro_f1_of_counts(counts: Integers, labels: Integers, answers: Integers, num_classes: int) -> Floats:
    """Counts (R, K) of kinds of rows with their labels (K,) and answers (K,) -> (R,); F1 of an absent class is 0."""
    labels, answers = np.eye(num_classes, dtype=np.int64)[[labels, answers]]  # (K, C) each
    return (2 * (counts @ (labels * answers)) / np.maximum(counts @ (labels + answers), 1)).mean(axis=1)


def find_majority(labels: Integers, label_names: Sequence[str]) -> dict[str, Any]:
    """The most frequent of the labels (N,), and the accuracy of always answering it."""
    counts = np.bincount(labels, minlength=len(label_names))
    return {"label": label_names[int(counts.argmax())], "accuracy": float(counts.max() / counts.sum())}
