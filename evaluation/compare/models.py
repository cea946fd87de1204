"""The figures of each compared run by itself. Legend: S seeds, N rows, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from evaluation.compare.runs import ComparedRun, Cost
from evaluation.scores.metrics import classification_metrics
from evaluation.scores.statistics import bootstrap_intervals
from evaluation.scores.sweep_summary import BOUNDED, FIGURES
from run_files.predictions_csv import PredictionTable


@dataclass(frozen=True)
class ModelFigures:
    """What a run scores and costs.

    Attributes:
        name, path, kind: of the run.
        seeds: their names; empty unless it is a folds run.
        values: by the name of the figure, one per seed.
        intervals: 95 % intervals of the means of `BOUNDED` over the seeds.
        seeds_averaged: the figures of the seeds' mean probabilities; empty for a run of less than two seeds.
        cost: parameters and time.
    """

    name: str
    path: str
    kind: str
    seeds: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, tuple[float, float]]
    seeds_averaged: Mapping[str, float]
    cost: Cost

    def mean(self, name: str) -> float:
        """Of the figure over the seeds."""
        return fmean(self.values[name])

    def std(self, name: str) -> float | None:
        """The standard deviation of the figure over the seeds (n - 1); None for one."""
        return stdev(self.values[name]) if len(self.values[name]) > 1 else None


@dataclass(frozen=True)
class Majority:
    """Always answering the class that is most frequent among the N rows."""

    label: str
    accuracy: float
    macro_f1: float
    weighted_f1: float


def score_model(run: ComparedRun) -> ModelFigures:
    """The figures of each seed and of their mean probabilities, with intervals of the means over the seeds."""
    tables = run.judged
    scores = [_score(table) for table in tables]
    answers = np.stack([table.answers for table in tables])  # (S, N)
    return ModelFigures(
        name=run.name,
        path=run.path,
        kind=run.kind,
        seeds=tuple(run.seeds),
        values={name: tuple(score[name] for score in scores) for name in FIGURES},
        intervals=bootstrap_intervals(answers, run.table.labels, len(run.table.label_names)),
        seeds_averaged=_score(run.table) if len(tables) > 1 else {},
        cost=run.cost,
    )


def score_majority(table: PredictionTable) -> Majority:
    """Of a table's rows; its probabilities don't matter."""
    counts = np.bincount(table.labels, minlength=len(table.label_names))
    always = np.tile(np.eye(len(counts))[counts.argmax()], (len(table.labels), 1))  # (N, C)
    metrics = classification_metrics(always, table.labels, table.label_names)
    scores = {name: metrics[name] for name in ("accuracy", "macro_f1", "weighted_f1")}
    return Majority(table.label_names[int(counts.argmax())], **scores)


def describe_models(models: Sequence[ModelFigures], majority: Majority) -> list[list[str]]:
    """The models as rows of text, header first, majority class last, without columns that none fills."""
    header = ["run", "seeds", "accuracy", "macro-F1", "weighted-F1", "ECE"]
    header += ["seeds averaged: accuracy", "macro-F1", "weighted-F1", "ECE", "parameters", "trainable", "time"]
    rows = [_describe_model(model) for model in models]
    always = [f"{value:.3f}" for value in (majority.accuracy, majority.macro_f1, majority.weighted_f1)]
    rows.append([f"always {majority.label}", "", *always, *[""] * (len(header) - 5)])
    filled = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return [[row[column] for column in filled] for row in (header, *rows)]


def _describe_model(model: ModelFigures) -> list[str]:
    figures = []
    for name in FIGURES:
        std, interval = model.std(name), model.intervals.get(name)
        spread = "" if std is None else f" ± {std:.3f}"
        bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if name in BOUNDED and interval else ""
        figures.append(f"{model.mean(name):.3f}{spread}{bounds}")
    averaged = [f"{model.seeds_averaged[name]:.3f}" if model.seeds_averaged else "" for name in FIGURES]
    counts = ["" if count is None else f"{count / 1e6:.2f} M" for count in (model.cost.total, model.cost.trainable)]
    seeds = str(len(model.seeds) or "")
    return [model.name, seeds, *figures, *averaged, *counts, _format_seconds(model.cost.seconds)]


def _format_seconds(seconds: float | None) -> str:
    """12 s, 3.4 min, 5.6 h"""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _score(table: PredictionTable) -> dict[str, float]:
    metrics = classification_metrics(table.probabilities, table.labels, table.label_names)
    return {name: metrics[name] for name in FIGURES}
