"""What each task is scored by, and how its figures are shown. Legend: N rows, C classes, R resamples, S models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_fscore_support

from data_utils.prepare.columns import is_labelled
from evaluation.scores import metrics
from evaluation.scores.resampling import (
    Floats,
    Scores,
    auroc,
    average_precision,
    correlation,
    find_intervals,
    mid_ranks,
    resample,
)
from modeling.errors import InputError

Figures = dict[str, Any]
Intervals = Mapping[str, tuple[float, float] | None]
Answers = NDArray[Any]  # of N rows, in the form of their labels, see `data_utils.prepare.columns`
MAX_LEVELS = 20  # of whole numbers that are scored as classes too


class Task(ABC):
    """The scores of one task, of rows that all have a label.

    Attributes:
        scores: that stand in tables, and their titles there; the first is the baseline's too.
        interval_scores: which of them have intervals there.
        sign: 1 where more of the first is better, -1 where less is.
    """

    scores: ClassVar[Mapping[str, str]]
    interval_scores: ClassVar[Sequence[str]]
    sign: ClassVar[int] = 1

    @abstractmethod
    def scorer(self, values: Floats, labels: Answers, answers: Answers) -> Callable[[Floats], Scores]:
        """Weights (R, N) of the rows -> scores (R,), by probabilities (N, C) and the answers."""

    @abstractmethod
    def find_baseline(self, labels: Answers, label_names: Sequence[str]) -> dict[str, Any]:
        """What always giving the best one answer gets: `label`, and the first of the scores."""

    def measure(self, values: Floats, labels: Answers, answers: Answers, label_names: Sequence[str]) -> Figures:
        """Figures, ready for JSON, without intervals; None for a score that such rows don't define."""
        found = self.scorer(values, labels, answers)(np.ones((1, len(labels))))
        return {"num_rows": len(labels)} | {name: _number(score[0]) for name, score in found.items()}

    def find_intervals(self, values: Sequence[Floats], labels: Answers, answers: Sequence[Answers]) -> Intervals:
        """95 % intervals of the mean scores of S models of the same rows."""
        cost = labels.size // len(labels)
        samples = [
            resample(self.scorer(*each), len(labels), cost=cost)
            for each in zip(values, [labels] * len(values), answers, strict=True)
        ]
        return find_intervals({name: np.mean([each[name] for each in samples], axis=0) for name in samples[0]})


class SingleLabel(Task):
    """One class per row; of two classes also how well the second one's probability ranks the rows."""

    scores, interval_scores = metrics.SCORES, metrics.INTERVAL_SCORES

    def scorer(self, values: Floats, labels: Answers, answers: Answers) -> Callable[[Floats], Scores]:
        positive, ranked = labels.astype(float), values[:, 1]
        return lambda weights: {
            "auroc": auroc(positive, ranked, weights),
            "average_precision": average_precision(positive, ranked, weights),
        }

    def measure(self, values: Floats, labels: Answers, answers: Answers, label_names: Sequence[str]) -> Figures:
        ranks = super().measure(values, labels, answers, label_names) if len(label_names) == 2 else {}
        return ranks | metrics.classification_metrics(values, labels, label_names)

    def find_intervals(self, values: Sequence[Floats], labels: Answers, answers: Sequence[Answers]) -> Intervals:
        num_classes = values[0].shape[1]
        ranks = super().find_intervals(values, labels, answers) if num_classes == 2 else {}
        return {**metrics.bootstrap_intervals(np.stack(answers), labels, num_classes), **ranks}

    def find_baseline(self, labels: Answers, label_names: Sequence[str]) -> dict[str, Any]:
        return metrics.find_majority(labels, label_names)


class MultiLabel(Task):
    """Any number of classes per row, each answered from a threshold of its own on."""

    scores: ClassVar = {
        **{"macro_f1": "macro-F1", "micro_f1": "micro-F1", "weighted_f1": "weighted-F1"},
        **{"map": "mAP", "subset_accuracy": "subset accuracy"},
    }
    interval_scores = tuple(scores)

    def scorer(self, values: Floats, labels: Answers, answers: Answers) -> Callable[[Floats], Scores]:
        exact = (labels == answers).all(axis=1).astype(float)

        def score(weights: Floats) -> Scores:
            hits, sizes, support = weights @ (labels * answers), weights @ (labels + answers), weights @ labels
            f1 = 2 * hits / np.maximum(sizes, 1)  # (R, C)
            precisions = np.stack([average_precision(*each, weights) for each in zip(labels.T, values.T, strict=True)])
            ranked = ~np.isnan(precisions)  # a class without a positive row has none
            return {
                "macro_f1": f1.mean(axis=1),
                "micro_f1": 2 * hits.sum(axis=1) / np.maximum(sizes.sum(axis=1), 1),
                "weighted_f1": (f1 * support).sum(axis=1) / np.maximum(support.sum(axis=1), 1),
                "map": np.where(ranked, precisions, 0).sum(axis=0) / np.maximum(ranked.sum(axis=0), 1),
                "subset_accuracy": weights @ exact / weights.sum(axis=1),
            }

        return score

    def measure(self, values: Floats, labels: Answers, answers: Answers, label_names: Sequence[str]) -> Figures:
        per_class = precision_recall_fscore_support(labels, answers, average=None, zero_division=0)
        once = np.ones((1, len(labels)))
        ranks = [average_precision(*each, once)[0] for each in zip(labels.T, values.T, strict=True)]
        return super().measure(values, labels, answers, label_names) | {
            "per_class": {
                name: {
                    **{"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)},
                    "average_precision": _number(rank),
                }
                for name, p, r, f, s, rank in zip(label_names, *per_class, ranks, strict=True)
            },
            "label_names": list(label_names),
        }

    def find_baseline(self, labels: Answers, label_names: Sequence[str]) -> dict[str, Any]:
        found = self.scorer(labels, labels, np.ones_like(labels))(np.ones((1, len(labels))))
        return {"label": "every label", "macro_f1": float(found["macro_f1"][0])}


class Regression(Task):
    """A number per row; whole numbers of few levels are also scored as the classes that they round to."""

    scores: ClassVar = {"mae": "MAE", "rmse": "RMSE", "pearson": "Pearson", "spearman": "Spearman"}
    interval_scores, sign = tuple(scores), -1

    def scorer(self, values: Floats, labels: Answers, answers: Answers) -> Callable[[Floats], Scores]:
        errors, levels = answers - labels, labels.max() - labels.min()
        exact = np.clip(answers.round(), labels.min(), labels.max()) == labels
        are_levels = levels <= MAX_LEVELS and bool((labels == labels.round()).all())

        def score(weights: Floats) -> Scores:
            total = weights.sum(axis=1)
            rounded = {"rounded_accuracy": weights @ exact.astype(float) / total} if are_levels else {}
            return {
                "mae": weights @ np.abs(errors) / total,
                "rmse": np.sqrt(weights @ errors**2 / total),
                "pearson": correlation(answers, labels, weights),
                "spearman": correlation(mid_ranks(answers, weights), mid_ranks(labels, weights), weights),
                **rounded,
            }

        return score

    def find_baseline(self, labels: Answers, label_names: Sequence[str]) -> dict[str, Any]:
        median = np.median(labels)
        return {"label": f"{median:g}, the median", "mae": float(np.abs(labels - median).mean())}


TASKS: dict[str, Task] = {"single_label": SingleLabel(), "multi_label": MultiLabel(), "regression": Regression()}


def name_task(labels: ArrayLike) -> str:
    """The task of labels in the form of the column `label`."""
    values = np.asarray(labels)
    return "single_label" if values.dtype.kind == "i" else "multi_label" if values.ndim == 2 else "regression"


def take_rows(values: ArrayLike, labels: ArrayLike, answers: ArrayLike) -> tuple[Floats, Answers, Answers]:
    """Of all three those rows that have a label; `InputError` where none has one, see `take_labelled` too."""
    if name_task(labels) == "single_label":
        shares, class_ids, (chosen,) = metrics.take_labelled(values, labels, answers)
        return shares, class_ids, chosen
    labelled = is_labelled(labels)
    if not labelled.any():
        raise InputError(f"None of the {len(labelled)} rows has a label, so there is nothing to score.")
    found, known, given = (np.asarray(each, dtype=np.float64)[labelled] for each in (values, labels, answers))
    if not np.isfinite(found).all():
        raise ValueError("an answer is not finite; the model's weights or its mixed precision are at fault")
    return found, known, given


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
