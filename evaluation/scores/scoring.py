"""From class probabilities to the figures that are printed and saved. Legend: N rows, C classes, S seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from numpy.typing import ArrayLike

from data_utils.console.tables import format_interval, format_table
from evaluation.scores.resampling import Floats
from evaluation.scores.tasks import TASKS, Figures, Task, name_task, take_rows
from evaluation.scores.thresholds import answer_rows
from run_files.predictions_csv import PredictionTable


@dataclass(frozen=True)
class SeedScores:
    """How S trainings judge the same rows: S values of each of `Task.scores`, 95 % intervals of the means of some."""

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
    names, labels, task = tables[0].label_names, tables[0].labels, TASKS[name_task(tables[0].labels)]
    rows = [take_rows(table.probabilities, labels, table.answers) for table in tables]
    scores = [task.measure(*each, names) for each in rows]
    intervals = task.find_intervals([each[0] for each in rows], rows[0][1], [each[2] for each in rows])
    chosen = {name: ends for name in task.interval_scores if (ends := intervals[name]) is not None}
    values = {name: tuple(each[name] for each in scores) for name in task.scores}
    return SeedScores({name: each for name, each in values.items() if None not in each}, chosen)


def score_predictions(
    probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str], thresholds: Floats | None = None
) -> Figures:
    """`score_answers` of the answers that these rows get, see `answer_rows`."""
    return score_answers(probabilities, labels, answer_rows(probabilities, labels, thresholds), label_names)


def measure_predictions(probabilities: ArrayLike, labels: ArrayLike, label_names: Sequence[str]) -> Figures:
    """`score_predictions` without intervals and baseline, which take a while."""
    rows = take_rows(probabilities, labels, answer_rows(probabilities, labels))
    return TASKS[name_task(labels)].measure(*rows, label_names)


def score_answers(
    probabilities: ArrayLike, labels: ArrayLike, answers: ArrayLike, label_names: Sequence[str]
) -> Figures:
    """`Task.measure` of the labelled rows, {score}_interval ([low, high], 95 %), and majority_baseline.

    The last is {label, and the task's first score} of always giving one answer, the best for these very rows.
    """
    task = TASKS[name_task(labels)]
    values, known, given = take_rows(probabilities, labels, answers)
    intervals = task.find_intervals([values], known, [given])
    return (
        task.measure(values, known, given, label_names)
        | {f"{name}_interval": None if each is None else list(each) for name, each in intervals.items()}
        | {"majority_baseline": task.find_baseline(known, label_names)}
    )


def format_score(figures: Mapping[str, Any], name: str) -> str:
    """A score, with its interval if it has one."""
    return format_interval(figures[name], figures.get(f"{name}_interval"))


def task_of_figures(figures: Mapping[str, Any]) -> Task:
    """By the score that they begin with."""
    return next(task for task in TASKS.values() if next(iter(task.scores)) in figures)


def tabulate_inputs(head: str, inputs: Mapping[str, Figures], scores: Sequence[str]) -> list[list[str]]:
    """Scores, the task's first one first, of several inputs of the same rows as rows of text; the baseline is last."""
    titles = task_of_figures(next(iter(inputs.values()))).scores
    rows = [[head, *(titles[score] for score in scores)]]
    rows += [[name, *(format_score(figures, score) for score in scores)] for name, figures in inputs.items()]
    baseline = next(iter(inputs.values()))["majority_baseline"]
    return [*rows, [f"always {baseline['label']}", f"{baseline[scores[0]]:.3f}", *[""] * (len(scores) - 1)]]


def format_metrics(metrics: Figures, *, title: str) -> str:
    """The summary, the table of classes and the confusion matrix of `score_predictions` as plain text."""
    task, baseline = task_of_figures(metrics), metrics["majority_baseline"]
    first, first_title = next(iter(task.scores.items()))
    heads = {**task.scores, "auroc": "AUROC", "average_precision": "AP", "rounded_accuracy": "accuracy when rounded"}
    scores = "  ".join(f"{head} {format_score(metrics, name)}" for name, head in heads.items() if name in metrics)
    parts = [
        f"{title}: {metrics['num_rows']} rows, 95 % intervals in brackets (bootstrap over rows)\n{scores}\n"
        f"always {baseline['label']}: {first_title} {baseline[first]:.3f}"
    ]
    if "per_class" in metrics:
        keys = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "AP"}
        keys = {key: head for key, head in keys.items() if all(key in row for row in metrics["per_class"].values())}
        classes = [["class", *keys.values(), "rows"]]
        for name, row in metrics["per_class"].items():
            classes.append([name, *(format_interval(row[key]) for key in keys), str(row["support"])])
        parts.append(format_table(classes))
    if "confusion_matrix" in metrics:
        matrix = [["label \\ prediction", *metrics["label_names"]]]
        for name, counts in zip(metrics["label_names"], metrics["confusion_matrix"], strict=True):
            matrix.append([name, *map(str, counts)])
        parts.append(format_table(matrix))
    return "\n\n".join(parts)
