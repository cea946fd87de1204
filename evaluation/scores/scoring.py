"""From class probabilities to the figures that are printed and saved. Legend: N rows, C classes, S seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data_utils.console.tables import format_interval, format_table
from data_utils.prepare.columns import NO_LABEL_ID
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES, SentimentMetrics, classification_metrics
from evaluation.scores.statistics import bootstrap_intervals
from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable


@dataclass(frozen=True)
class SeedScores:
    """How S trainings judge the same rows.

    Attributes:
        values: by the name of the score (`SCORES`), S each.
        intervals: 95 % intervals of the means of `INTERVAL_SCORES` over the seeds.
    """

    values: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, tuple[float, float]]

    def spread(self, name: str) -> tuple[float, float | None]:
        """The mean of a score over the seeds, and its standard deviation (n - 1), which one seed has not."""
        values = self.values[name]
        return fmean(values), stdev(values) if len(values) > 1 else None

    @property
    def mean(self) -> dict[str, float]:
        """Of each score."""
        return {name: self.spread(name)[0] for name in self.values}

    @property
    def std(self) -> dict[str, float | None]:
        """Of each score."""
        return {name: self.spread(name)[1] for name in self.values}

    def format(self, name: str) -> str:
        """0.731 ± 0.004 [0.683, 0.778]"""
        mean, std = self.spread(name)
        return format_interval(mean, self.intervals.get(name), std=std)


def score_seeds(tables: Sequence[PredictionTable]) -> SeedScores:
    """The scores of one or more tables of the same rows in the same order, all labelled."""
    scores = [classification_metrics(table.probabilities, table.labels, table.label_names) for table in tables]
    answers = np.stack([table.answers for table in tables])  # (S, N)
    intervals = bootstrap_intervals(answers, tables[0].labels, len(tables[0].label_names))
    return SeedScores({name: tuple(each[name] for each in scores) for name in SCORES}, intervals)


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
    return (
        metrics
        | {f"{name}_interval": list(intervals[name]) for name in INTERVAL_SCORES}
        | {"majority_baseline": find_majority(labels, label_names)}
    )


def find_majority(labels: ArrayLike, label_names: Sequence[str]) -> dict[str, Any]:
    """The most frequent of the labels (N,), and the accuracy of always answering it."""
    counts = np.bincount(labels, minlength=len(label_names))
    return {"label": label_names[int(counts.argmax())], "accuracy": float(counts.max() / counts.sum())}


def format_metrics(metrics: dict[str, Any], *, title: str) -> str:
    """The summary, the table of classes and the confusion matrix of `score_predictions` as plain text."""
    baseline = metrics["majority_baseline"]
    accuracy, macro_f1 = (format_interval(metrics[name], metrics[f"{name}_interval"]) for name in INTERVAL_SCORES)
    classes = [["class", "precision", "recall", "F1", "rows"]]
    for name, scores in metrics["per_class"].items():
        figures = [f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")]
        classes.append([name, *figures, str(scores["support"])])
    matrix = [["label \\ prediction", *metrics["label_names"]]]
    for name, counts in zip(metrics["label_names"], metrics["confusion_matrix"], strict=True):
        matrix.append([name, *map(str, counts)])
    return (
        f"{title}: {metrics['num_rows']} rows, 95 % intervals in brackets (bootstrap over rows)\n"
        f"accuracy {accuracy}  macro-F1 {macro_f1}  weighted-F1 {metrics['weighted_f1']:.3f}  "
        f"ECE {metrics['ece']:.3f}\nalways {baseline['label']}: accuracy {baseline['accuracy']:.3f}\n\n"
        f"{format_table(classes)}\n\n{format_table(matrix)}"
    )


def format_ablation(result: dict[str, Any], *, title: str) -> str:
    """The table of `evaluation.tasks.ablation.summarise_ablation` and its remarks as plain text."""
    rows = [["input", "accuracy", "macro-F1", "weighted-F1"]]
    for name, metrics in result["inputs"].items():
        bounded = [format_interval(metrics[score], metrics[f"{score}_interval"]) for score in INTERVAL_SCORES]
        rows.append([name, *bounded, f"{metrics['weighted_f1']:.3f}"])
    baseline = result["majority_baseline"]
    rows.append([f"always {baseline['label']}", f"{baseline['accuracy']:.3f}", "", ""])
    heading = f"ablation on {title}: {result['num_rows']} rows, missing modality: {result['ablation_input']}"
    lines = [f"{heading}, 95 % intervals in brackets", "", format_table(rows), "", *result["remarks"]]
    return "\n".join(lines).rstrip()
