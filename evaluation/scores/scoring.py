"""From class probabilities to the figures that are printed and saved. Legend: N rows, C classes, S seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data_utils.console.tables import format_interval, format_table
from evaluation.scores.metrics import (
    INTERVAL_SCORES,
    SCORES,
    Integers,
    bootstrap_intervals,
    classification_metrics,
    take_labelled,
)
from run_files.predictions_csv import PredictionTable

Figures = dict[str, Any]  # as `score_predictions` returns them


@dataclass(frozen=True)
class SeedScores:
    """How S trainings judge the same rows: S values of each of `SCORES`, 95 % intervals of the means of some."""

    values: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def mean(self) -> dict[str, float]:
        """Of each score, over the seeds."""
        return {name: fmean(values) for name, values in self.values.items()}

    @property
    def std(self) -> dict[str, float | None]:
        """Standard deviation (n - 1) of each score over the seeds; one seed has none."""
        return {name: stdev(values) if len(values) > 1 else None for name, values in self.values.items()}

    def spreads(self, prefix: str = "") -> dict[str, float | None]:
        """Mean and deviation of each score, by the column of a table."""
        kinds: dict[str, Mapping[str, float | None]] = {"mean": self.mean, "std": self.std}
        return {f"{prefix}{name}_{kind}": kinds[kind][name] for name in self.values for kind in kinds}

    def ends(self) -> dict[str, float]:
        """Of the intervals, by the column of a table."""
        ends = {"low": 0, "high": 1}
        return {f"{name}_{end}": pair[place] for name, pair in self.intervals.items() for end, place in ends.items()}

    def format(self, name: str) -> str:
        """0.731 ± 0.004 [0.683, 0.778]"""
        return format_interval(self.mean[name], self.intervals.get(name), std=self.std[name])


def score_seeds(tables: Sequence[PredictionTable]) -> SeedScores:
    """The scores of one or more tables of the same rows in the same order, all labelled."""
    scores = [classification_metrics(table.probabilities, table.labels, table.label_names) for table in tables]
    answers = np.stack([table.answers for table in tables])  # (S, N)
    intervals = bootstrap_intervals(answers, tables[0].labels, len(tables[0].label_names))
    return SeedScores({name: tuple(each[name] for each in scores) for name in SCORES}, intervals)


def score_predictions(probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str]) -> Figures:
    """`classification_metrics`, accuracy_interval and macro_f1_interval ([low, high], 95 %), and majority_baseline.

    The last is {label, accuracy} of always answering the class that is most frequent among these very rows.
    """
    values, known, _ = take_labelled(probabilities, labels)
    intervals = bootstrap_intervals(values.argmax(axis=1), known, len(label_names))
    return (
        classification_metrics(values, known, label_names)
        | {f"{name}_interval": list(intervals[name]) for name in INTERVAL_SCORES}
        | {"majority_baseline": find_majority(known, label_names)}
    )


def find_majority(labels: Integers, label_names: Sequence[str]) -> dict[str, Any]:
    """The most frequent of the labels (N,), and the accuracy of always answering it."""
    counts = np.bincount(labels, minlength=len(label_names))
    return {"label": label_names[int(counts.argmax())], "accuracy": float(counts.max() / counts.sum())}


def format_score(figures: Mapping[str, Any], name: str) -> str:
    """A score, with its interval if it has one."""
    return format_interval(figures[name], figures.get(f"{name}_interval"))


def tabulate_inputs(head: str, inputs: Mapping[str, Figures], scores: Sequence[str]) -> list[list[str]]:
    """Scores, accuracy first, of several inputs of the same rows as rows of text; the majority class comes last."""
    rows = [[head, *(SCORES[score] for score in scores)]]
    rows += [[name, *(format_score(figures, score) for score in scores)] for name, figures in inputs.items()]
    baseline = next(iter(inputs.values()))["majority_baseline"]
    return [*rows, [f"always {baseline['label']}", f"{baseline['accuracy']:.3f}", *[""] * (len(scores) - 1)]]


def format_metrics(metrics: Figures, *, title: str) -> str:
    """The summary, the table of classes and the confusion matrix of `score_predictions` as plain text."""
    baseline = metrics["majority_baseline"]
    classes = [["class", "precision", "recall", "F1", "rows"]]
    for name, scores in metrics["per_class"].items():
        figures = [f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")]
        classes.append([name, *figures, str(scores["support"])])
    matrix = [["label \\ prediction", *metrics["label_names"]]]
    for name, counts in zip(metrics["label_names"], metrics["confusion_matrix"], strict=True):
        matrix.append([name, *map(str, counts)])
    return (
        f"{title}: {metrics['num_rows']} rows, 95 % intervals in brackets (bootstrap over rows)\n"
        f"{'  '.join(f'{head} {format_score(metrics, name)}' for name, head in SCORES.items())}\n"
        f"always {baseline['label']}: accuracy {baseline['accuracy']:.3f}\n\n"
        f"{format_table(classes)}\n\n{format_table(matrix)}"
    )
