"""From the trials of a sweep to its tables: one of all trials, one of the configurations over seeds and folds.

A configuration is what trials have in common but for seed and fold. With folds, the predictions of one seed's trials
are put together first: each row is judged once, by a model that did not see it in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_utils.console.tables import format_interval, format_markdown, format_table
from data_utils.system.files import write_csv, write_text
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES
from evaluation.scores.scoring import SeedScores, find_majority, score_seeds
from run_files.predictions_csv import PredictionTable
from run_files.sweep_folder import SweepFolder, TrialRecord

REPETITIONS = ("seed", "fold")


@dataclass(frozen=True)
class Configuration:
    """The trials of one configuration.

    Attributes:
        values: what was swept, without seed and fold.
        num_failed: seeds left out, because a trial of theirs has no figures.
        best, last: scores over the other seeds after the best and the last epoch; None without any.
        num_rows: N, each judged once per seed.
        majority: the most frequent class, and the accuracy of always answering it; None without rows.
        parameters: counts by part.
        seconds: of all its trials.
    """

    values: Mapping[str, str]
    num_failed: int
    best: SeedScores | None
    last: SeedScores | None
    num_rows: int
    majority: Mapping[str, Any] | None
    parameters: Mapping[str, int]
    seconds: float

    @property
    def num_seeds(self) -> int:
        """Over which the scores are."""
        return len(self.best.values["accuracy"]) if self.best else 0

    @property
    def label(self) -> str:
        """The values in a line."""
        return ", ".join(self.values.values() if len(self.values) == 1 else map(" ".join, self.values.items())) or "all"


def write_summary(folder: SweepFolder, metric: str) -> str:
    """Write trials.csv, summary.csv, summary.md and, with folds, the joined predictions; returns the table.

    Args:
        folder: of the finished trials.
        metric: by which the best epoch was chosen.
    """
    records = folder.read_records()
    _write_trials_csv(folder.path / "trials.csv", records)
    configurations = [_summarise(folder, seeds) for seeds in _group(records)]
    _write_summary_csv(folder.path / "summary.csv", configurations)
    table = _tabulate(configurations)
    remarks = _describe_choices(metric, max(each.num_rows for each in configurations), len(configurations))
    text = f"# {folder.path.name}\n\n{format_markdown(table)}\n\n{remarks}\n"
    write_text(folder.path / "summary.md", text)
    return f"{format_table(table)}\n\n{remarks}"


def _group(records: Sequence[TrialRecord]) -> list[list[list[TrialRecord]]]:
    """By configuration, and in it by seed, the trials of its folds; all in the order of the records."""
    groups: dict[tuple[str, ...], dict[str, list[TrialRecord]]] = {}
    for record in records:
        seeds = groups.setdefault(tuple(_without_repetitions(record).values()), {})
        seeds.setdefault(record.values.get("seed", ""), []).append(record)
    return [list(seeds.values()) for seeds in groups.values()]


def _without_repetitions(record: TrialRecord) -> dict[str, str]:
    return {name: value for name, value in record.values.items() if name not in REPETITIONS}


def _summarise(folder: SweepFolder, seeds: Sequence[Sequence[TrialRecord]]) -> Configuration:
    best, last = [], []
    for trials in seeds:
        if all(trial.error is None for trial in trials):
            found = [folder.read_predictions(trial) for trial in trials]
            best.append(PredictionTable.join([each.best for each in found]))
            last.append(PredictionTable.join([each.last for each in found]))
            if "fold" in trials[0].values:
                best[-1].write(folder.out_of_fold_file(trials))
    all_trials = [trial for trials in seeds for trial in trials]
    return Configuration(
        values=_without_repetitions(all_trials[0]),
        num_failed=len(seeds) - len(best),
        best=score_seeds(best) if best else None,
        last=score_seeds(last) if last else None,
        num_rows=len(best[0].guids) if best else 0,
        majority=find_majority(best[0].labels, best[0].label_names) if best else None,
        parameters=next((trial.parameters for trial in all_trials if trial.parameters), {}),
        seconds=sum(trial.seconds for trial in all_trials),
    )


def _write_trials_csv(path: Path, records: Sequence[TrialRecord]) -> None:
    """A row per trial: swept values, best epoch, scores after it and after the last one, seconds, error."""
    header = ["trial", *records[0].values, "best_epoch", *SCORES, *(f"last_{name}" for name in SCORES), "seconds"]
    rows = [
        [
            *(record.number, *record.values.values(), record.best_epoch),
            *((metrics or {}).get(name) for metrics in (record.metrics, record.last_metrics) for name in SCORES),
            *(round(record.seconds, 2), record.error),
        ]
        for record in records
    ]
    write_csv(path, [[*header, "error"], *rows])


def _write_summary_csv(path: Path, configurations: Sequence[Configuration]) -> None:
    """A row per configuration: means, standard deviations, intervals, parameters."""
    scores = [f"{prefix}{name}_{kind}" for prefix in ("", "last_") for name in SCORES for kind in ("mean", "std")]
    bounds = [f"{name}_{end}" for name in INTERVAL_SCORES for end in ("low", "high")]
    counts = ["parameters", "trainable", "seconds"]
    rows = [[*configurations[0].values, "seeds", "failed", "rows", *scores, *bounds, *counts]]
    for each in configurations:
        figures: list[float | None] = [None] * len(scores + bounds)
        if each.best and each.last:
            figures = [value for part in (each.best, each.last) for name in SCORES for value in part.spread(name)]
            figures += [end for name in INTERVAL_SCORES for end in each.best.intervals[name]]
        known = [*each.values.values(), each.num_seeds, each.num_failed, each.num_rows]
        costs = [each.parameters.get("total"), each.parameters.get("trainable"), round(each.seconds, 2)]
        rows.append([*known, *figures, *costs])
    write_csv(path, rows)


def _tabulate(configurations: Sequence[Configuration]) -> list[list[str]]:
    """The summary as rows of text, the header first, for screen and Markdown."""
    rows = [["configuration", "seeds", "accuracy", "macro-F1", "ECE", "last epoch: accuracy", "macro-F1", "trained"]]
    for each in configurations:
        cells = [""] * 5
        if each.best and each.last:
            cells = [each.best.format(name) for name in (*INTERVAL_SCORES, "ece")]
            cells += [format_interval(mean, std=std) for mean, std in map(each.last.spread, INTERVAL_SCORES)]
        failed = f" ({each.num_failed} failed)" if each.num_failed else ""
        trained = f"{each.parameters['trainable'] / 1e6:.2f} M" if each.parameters else ""
        rows.append([each.label, f"{each.num_seeds}{failed}", *cells, trained])
    majority = next((each.majority for each in configurations if each.majority), None)
    if majority:
        rows.append([f"always {majority['label']}", "", f"{majority['accuracy']:.3f}", *[""] * (len(rows[0]) - 3)])
    return rows


def _describe_choices(metric: str, num_rows: int, num_configurations: int) -> str:
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
