"""From the trials of a sweep to its tables: one of all trials, one of the configurations over seeds and folds.

A configuration is what trials have in common but for seed and fold. With folds, the predictions of one seed's trials
are put together first: each row is judged once, by a model that did not see it in training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_utils.system.files import write_csv, write_text
from evaluation.scores.metrics import classification_metrics
from evaluation.scores.statistics import bootstrap_intervals
from run_files.report import format_markdown

FIGURES = ("accuracy", "macro_f1", "weighted_f1", "ece")
BOUNDED = ("accuracy", "macro_f1")
APART = ("seed", "fold")


@dataclass(frozen=True)
class Predictions:
    """Answers for N rows: guids, labels (N,) and probabilities (N, C), after the best epoch and after the last one."""

    guids: tuple[str, ...]
    labels: NDArray[np.int64]
    best: NDArray[np.float64]
    last: NDArray[np.float64]


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        number: in the recipe, from 0.
        values: swept flags, and the fold, as written.
        flags: with which train.py trains the same.
        seconds: of the trial.
        best_epoch: from 1.
        metrics, last_metrics: after the best and after the last epoch.
        parameters: counts by part (`modeling.parameter_table`).
        error: why it has no figures, else None.
    """

    number: int
    values: dict[str, str]
    flags: list[str]
    seconds: float
    best_epoch: int | None = None
    metrics: dict[str, float] | None = None
    last_metrics: dict[str, float] | None = None
    parameters: dict[str, int] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Configuration:
    """The trials of one configuration.

    Attributes:
        values: what was swept, without seed and fold.
        num_seeds: over which the figures are.
        num_failed: seeds left out, because a trial of theirs has no figures.
        num_rows: N, each judged once per seed.
        majority: the most frequent class, and the accuracy of always answering it; None without rows.
        figures, last_figures: (mean, standard deviation or None) by name, after the best and the last epoch.
        intervals: of the means of `BOUNDED`.
        parameters: counts by part.
        seconds: of all its trials.
    """

    values: dict[str, str]
    num_seeds: int
    num_failed: int
    num_rows: int
    majority: tuple[str, float] | None
    figures: dict[str, tuple[float, float | None]]
    last_figures: dict[str, tuple[float, float | None]]
    intervals: dict[str, tuple[float, float]]
    parameters: dict[str, int]
    seconds: float

    @property
    def label(self) -> str:
        """The values in a line."""
        return ", ".join(self.values.values() if len(self.values) == 1 else map(" ".join, self.values.items())) or "all"


def join_folds(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of one seed's folds as one, sorted by guid: the same rows in the same order for every seed."""
    guids = [guid for part in parts for guid in part.guids]
    order = sorted(range(len(guids)), key=guids.__getitem__)
    names = ("labels", "best", "last")
    arrays = (np.concatenate([getattr(part, name) for part in parts])[order] for name in names)
    return Predictions(tuple(guids[row] for row in order), *arrays)


def group_by_seed(records: Sequence[TrialRecord]) -> dict[tuple[str, ...], dict[str, list[TrialRecord]]]:
    """Records by configuration (its values), and in it by seed; both in the order of the records."""
    groups: dict[tuple[str, ...], dict[str, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        values = tuple(value for name, value in record.values.items() if name not in APART)
        groups[values][record.values.get("seed", "")].append(record)
    return groups


def summarise_sweep(
    records: Sequence[TrialRecord], load: Callable[[TrialRecord], Predictions], label_names: Sequence[str]
) -> list[Configuration]:
    """A summary of each configuration, in the order of the recipe.

    Args:
        records: all trials.
        load: reads a trial's predictions.
        label_names: the C classes' names.
    """
    return [_summarise(list(seeds.values()), load, label_names) for seeds in group_by_seed(records).values()]


def _summarise(
    seeds: list[list[TrialRecord]], load: Callable[[TrialRecord], Predictions], label_names: Sequence[str]
) -> Configuration:
    whole = [trials for trials in seeds if all(trial.error is None for trial in trials)]
    judged = [join_folds([load(trial) for trial in trials]) for trials in whole]
    first, all_trials = seeds[0][0], [trial for trials in seeds for trial in trials]
    return Configuration(
        values={name: value for name, value in first.values.items() if name not in APART},
        num_seeds=len(whole),
        num_failed=len(seeds) - len(whole),
        num_rows=len(judged[0].guids) if judged else 0,
        majority=_find_majority(judged[0].labels, label_names) if judged else None,
        figures=spread_figures([classification_metrics(each.best, each.labels, label_names) for each in judged]),
        last_figures=spread_figures([classification_metrics(each.last, each.labels, label_names) for each in judged]),
        intervals=_bound(judged, len(label_names)),
        parameters=next((trial.parameters for trial in all_trials if trial.parameters), {}),
        seconds=sum(trial.seconds for trial in all_trials),
    )


def _find_majority(labels: NDArray[np.int64], label_names: Sequence[str]) -> tuple[str, float]:
    counts = np.bincount(labels, minlength=len(label_names))
    return label_names[int(counts.argmax())], float(counts.max() / counts.sum())


def spread_figures(metrics: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """{figure: (mean, standard deviation or None)} of the metrics of several trainings; empty without any."""
    columns = {name: [each[name] for each in metrics] for name in FIGURES if metrics}
    return {name: (fmean(each), stdev(each) if len(each) > 1 else None) for name, each in columns.items()}


def _bound(judged: Sequence[Predictions], num_classes: int) -> dict[str, tuple[float, float]]:
    if not judged:
        return {}
    answers = np.stack([each.best.argmax(axis=1) for each in judged])  # (S, N)
    return bootstrap_intervals(answers, judged[0].labels, num_classes)


def write_trials_csv(path: Path, records: Sequence[TrialRecord]) -> None:
    """A row per trial: swept values, best epoch, figures after it and after the last one, seconds, error."""
    header = ["trial", *records[0].values, "best_epoch", *FIGURES, *(f"last_{name}" for name in FIGURES), "seconds"]
    rows = [
        [
            *(record.number, *record.values.values(), record.best_epoch),
            *((record.metrics or {}).get(name) for name in FIGURES),
            *((record.last_metrics or {}).get(name) for name in FIGURES),
            *(round(record.seconds, 2), record.error),
        ]
        for record in records
    ]
    write_csv(path, [[*header, "error"], *rows])


def write_summary_csv(path: Path, configurations: Sequence[Configuration]) -> None:
    """A row per configuration: means, standard deviations, intervals, parameters."""
    figures = [f"{prefix}{name}_{kind}" for prefix in ("", "last_") for name in FIGURES for kind in ("mean", "std")]
    bounds = [f"{name}_{end}" for name in BOUNDED for end in ("low", "high")]
    counts = ["parameters", "trainable", "seconds"]
    rows = [[*configurations[0].values, "seeds", "failed", "rows", *figures, *bounds, *counts]]
    for each in configurations:
        pairs = [part.get(name, (None, None)) for part in (each.figures, each.last_figures) for name in FIGURES]
        ends = [each.intervals.get(name, (None, None)) for name in BOUNDED]
        rows.append(
            [
                *(*each.values.values(), each.num_seeds, each.num_failed, each.num_rows),
                *(value for pair in (*pairs, *ends) for value in pair),
                *(each.parameters.get("total"), each.parameters.get("trainable"), round(each.seconds, 2)),
            ]
        )
    write_csv(path, rows)


def tabulate_sweep(configurations: Sequence[Configuration]) -> list[list[str]]:
    """The summary as rows of text, the header first, for screen and Markdown."""
    rows = [["configuration", "seeds", "accuracy", "macro-F1", "ECE", "last epoch: accuracy", "macro-F1", "trained"]]
    for each in configurations:
        bounded = [_format(each.figures.get(name), each.intervals.get(name)) for name in BOUNDED]
        others = [_format(each.figures.get("ece")), *(_format(each.last_figures.get(name)) for name in BOUNDED)]
        failed = f" ({each.num_failed} failed)" if each.num_failed else ""
        trained = f"{each.parameters['trainable'] / 1e6:.2f} M" if each.parameters else ""
        rows.append([each.label, f"{each.num_seeds}{failed}", *bounded, *others, trained])
    label, share = next((each.majority for each in configurations if each.majority), ("", None))
    return rows if share is None else [*rows, [f"always {label}", "", f"{share:.3f}", *[""] * (len(rows[0]) - 3)]]


def write_summary_md(path: Path, table: Sequence[Sequence[str]], *, title: str, remarks: str) -> None:
    """The table of `tabulate_sweep` as Markdown, and what is to be known about it."""
    write_text(path, "\n".join([f"# {title}", "", format_markdown(table), "", remarks, ""]))


def describe_choices(metric: str, num_rows: int, num_configurations: int) -> str:
    """What was chosen on which rows, and what the intervals hold, for the reader of the table."""
    sentences = [
        f"Mean over seeds ± standard deviation; in brackets a 95 % interval of the mean (bootstrap over the {num_rows} "
        "validation rows), which holds neither the variance of training nor any choice made on these rows.",
        f"The epoch of each trial was chosen by its {metric} on the very rows that it is judged by, which flatters the "
        "figures; those after the last epoch are chosen by nothing.",
    ]
    if num_configurations > 1:
        sentences.append(
            f"The best of {num_configurations} configurations is flattered once more: judge it on rows that no trial "
            "has seen."
        )
    return " ".join(sentences)


def _format(figure: tuple[float, float | None] | None, interval: tuple[float, float] | None = None) -> str:
    if figure is None:
        return ""
    spread = "" if figure[1] is None else f" ± {figure[1]:.3f}"
    bounds = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{figure[0]:.3f}{spread}{bounds}"
