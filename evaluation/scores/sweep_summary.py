"""From the trials of a sweep to its tables: one of all trials, one of the configurations over seeds and folds.

A configuration is what trials have in common but for seed and fold. With folds, the predictions of one seed's trials
are put together first: each row is judged once, by a model that did not see it in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_utils.console.tables import format_interval, format_markdown, format_table
from data_utils.page.render import write_tables
from data_utils.system.files import write_text
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES, find_majority
from evaluation.scores.scoring import SeedScores, score_seeds
from run_files.output import write_table
from run_files.predictions_csv import PredictionTable
from run_files.sweep_folder import SweepFolder, TrialRecord

REPETITIONS = ("seed", "fold")


@dataclass(frozen=True)
class Configuration:
    """The trials, of all seeds and folds, of one combination of swept values.

    A seed of which a trial has no figures is left out: num_failed counts them. Without any other, the answers of the
    first seed (`table`) and the scores over the seeds after the best and the last epoch are None.
    """

    values: Mapping[str, str]
    trials: Sequence[TrialRecord]
    num_seeds: int
    num_failed: int
    table: PredictionTable | None
    best: SeedScores | None
    last: SeedScores | None

    @property
    def num_rows(self) -> int:
        """N, each judged once per seed."""
        return 0 if self.table is None else len(self.table.guids)

    @property
    def parameters(self) -> Mapping[str, int]:
        """Counts by part."""
        return next((trial.parameters for trial in self.trials if trial.parameters), {})

    @property
    def label(self) -> str:
        """The values in a line."""
        return ", ".join(self.values.values() if len(self.values) == 1 else map(" ".join, self.values.items())) or "all"


def write_summary(folder: SweepFolder, metric: str) -> str:
    """Write trials.csv, summary.csv, summary.md, report.html, of folds the joined predictions; returns the table.

    The best epoch was chosen by `metric`.
    """
    records = folder.read_records()
    write_table(folder.path / "trials.csv", [_trial_as_row(record) for record in records])
    groups: dict[tuple[tuple[str, str], ...], dict[str, list[TrialRecord]]] = {}
    for record in records:
        values = tuple(item for item in record.values.items() if item[0] not in REPETITIONS)
        groups.setdefault(values, {}).setdefault(record.values.get("seed", ""), []).append(record)
    configurations = [_summarise(folder, dict(values), list(seeds.values())) for values, seeds in groups.items()]
    write_table(folder.path / "summary.csv", [_configuration_as_row(each) for each in configurations])
    table = _tabulate(configurations)
    remarks = _describe_choices(metric, max(each.num_rows for each in configurations), len(configurations))
    write_text(folder.path / "summary.md", f"# {folder.path.name}\n\n{format_markdown(table)}\n\n{remarks}\n")
    write_tables(folder.report_file, folder.path.name, "Sweep", {"Configurations": table}, remarks=[remarks])
    return f"{format_table(table)}\n\n{remarks}"


def _summarise(folder: SweepFolder, values: Mapping[str, str], seeds: Sequence[Sequence[TrialRecord]]) -> Configuration:
    """`seeds` has the trials of each seed's folds."""
    best, last = [], []
    for trials in seeds:
        if all(trial.error is None for trial in trials):
            found = [folder.read_predictions(trial) for trial in trials]
            best.append(PredictionTable.join([each.best for each in found]))
            last.append(PredictionTable.join([each.last for each in found]))
            if "fold" in trials[0].values:
                best[-1].write(folder.out_of_fold_file(trials))
    return Configuration(
        values=values,
        trials=[trial for trials in seeds for trial in trials],
        num_seeds=len(best),
        num_failed=len(seeds) - len(best),
        table=best[0] if best else None,
        best=score_seeds(best) if best else None,
        last=score_seeds(last) if last else None,
    )


def _trial_as_row(record: TrialRecord) -> dict[str, Any]:
    """Swept values, best epoch, scores after it and after the last one, seconds, error."""
    best, last = record.metrics or {}, record.last_metrics or {}
    return {
        **{"trial": record.number, **record.values, "best_epoch": record.best_epoch},
        **{name: best.get(name) for name in SCORES},
        **{f"last_{name}": last.get(name) for name in SCORES},
        **{"seconds": round(record.seconds, 2), "error": record.error},
    }


def _configuration_as_row(each: Configuration) -> dict[str, Any]:
    """Means, standard deviations, intervals, parameters; a configuration without figures has none."""
    row = {**each.values, "seeds": each.num_seeds, "failed": each.num_failed, "rows": each.num_rows}
    if each.best and each.last:
        row |= {**each.best.spreads(), **each.last.spreads("last_"), **each.best.ends()}
    counts = {"parameters": each.parameters.get("total"), "trainable": each.parameters.get("trainable")}
    return {**row, **counts, "seconds": round(sum(trial.seconds for trial in each.trials), 2)}


def _tabulate(configurations: Sequence[Configuration]) -> list[list[str]]:
    """The summary as rows of text, the header first, for screen and Markdown."""
    rows = [["configuration", "seeds", "accuracy", "macro-F1", "ECE", "last epoch: accuracy", "macro-F1", "trained"]]
    for each in configurations:
        cells = [""] * 5
        if each.best and each.last:
            cells = [each.best.format(name) for name in (*INTERVAL_SCORES, "ece")]
            cells += [format_interval(each.last.mean[name], std=each.last.std[name]) for name in INTERVAL_SCORES]
        failed = f" ({each.num_failed} failed)" if each.num_failed else ""
        trained = f"{each.parameters['trainable'] / 1e6:.2f} M" if each.parameters else ""
        rows.append([each.label, f"{each.num_seeds}{failed}", *cells, trained])
    table = next((each.table for each in configurations if each.table), None)
    if table:
        majority = find_majority(table.labels, table.label_names)
        rows.append([f"always {majority['label']}", "", f"{majority['accuracy']:.3f}", *[""] * (len(rows[0]) - 3)])
    return rows


def _describe_choices(metric: str, num_rows: int, num_configurations: int) -> str:
    """What was chosen on which rows, and what the intervals hold, for the reader of the table."""
    text = (
        f"Mean over seeds ± standard deviation; in brackets a 95 % interval of the mean (bootstrap over the {num_rows} "
        "validation rows), which holds neither the variance of training nor any choice made on these rows. "
        f"The epoch of each trial was chosen by its {metric} on the very rows that it is judged by, which flatters the "
        "figures; those after the last epoch are chosen by nothing."
    )
    if num_configurations > 1:
        text += (
            f" The best of {num_configurations} configurations is flattered once more: judge it on rows that no trial "
            "has seen."
        )
    return text
