"""The answers that a report is about, and how good they are beside what any model has to beat. Legend: N rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_utils.page.shown import Figure
from evaluation.compare.comparison import format_p, format_points
from evaluation.scores.metrics import Floats, find_majority
from evaluation.scores.paired_tests import ALPHA, compare_accuracy
from evaluation.scores.scoring import SeedScores, score_answers, score_seeds
from evaluation.scores.tasks import TASKS, Figures, Task, name_task
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder, find_seed_files
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder

PROBES = {"text": "linear probe, text", "image": "linear probe, picture", "both": "linear probe, both"}
FEW_ROWS, FEW_OF_A_CLASS, LITTLE_RECALL, MUCH_ECE = 500, 10, 0.1, 0.1


@dataclass(frozen=True)
class Judged:
    """Labelled rows of a run with its answers, the mean of its seeds; `split` is their part, `chosen_by` the metric
    that chose the best epoch on these very rows."""

    folder: RunFolder
    split: str
    table: PredictionTable
    seeds: Sequence[PredictionTable] = ()
    chosen_by: str | None = None
    probes: Mapping[str, PredictionTable] = field(default_factory=dict)

    @property
    def task_name(self) -> str:
        return name_task(self.table.labels)

    @property
    def task(self) -> Task:
        return TASKS[self.task_name]

    @property
    def title(self) -> str:
        """What rows these are."""
        if isinstance(self.folder, FoldsFolder):
            return "rows, each judged by models that saw neither it nor a twin of it"
        return {"val": "validation rows", "test": "held-out rows of the test part"}[self.split]

    @cached_property
    def figures(self) -> Figures:
        """Of the answers, with intervals."""
        return score_answers(self.table.probabilities, self.table.labels, self.table.answers, self.table.label_names)

    @cached_property
    def over_seeds(self) -> SeedScores | None:
        """Where there are several."""
        return score_seeds(self.seeds) if len(self.seeds) > 1 else None

    def figure(self, name: str) -> Figure:
        """A score of the run: the mean over its seeds, where it has several."""
        if self.over_seeds is not None and name in self.over_seeds.values:
            found = self.over_seeds
            return Figure(found.mean[name], found.intervals.get(name), found.std[name])
        return figure_of(self.figures, name)

    @cached_property
    def scores(self) -> Floats:
        """(N,) 1 for an answer that is right and 0 for another one; of a regression the error."""
        known, given = self.table.labels, self.table.answers
        if self.task_name == "regression":
            return np.abs(known - given)
        return (known == given).reshape(len(known), -1).all(axis=1).astype(float)

    @cached_property
    def is_wrong(self) -> NDArray[np.bool_]:
        """(N,) whether an answer is not the label."""
        return self.scores > 0 if self.task_name == "regression" else self.scores < 1

    @cached_property
    def others(self) -> dict[str, Figures]:
        """Figures of the largest class for all rows, and of the probes, by their titles."""
        found = {}
        names, labels = self.table.label_names, self.table.labels
        if self.task_name == "single_label":
            largest = find_majority(labels, names)["label"]
            always = np.eye(len(names))[[names.index(largest)] * len(labels)]
            found[f"always {largest}"] = score_answers(always, labels, always.argmax(axis=1), names)
        for name, table in self.probes.items():
            found[PROBES[name]] = score_answers(table.probabilities, labels, table.answers, names)
        return found

    def tabulate(self) -> list[list[object]]:
        """Rows of a table: this run, what it has to beat, and each of the task's scores."""
        mean = ", mean of its seeds" if self.over_seeds else ""
        rows = [[f"this run{mean}", *(self.figure(name) for name in self.task.scores)]]
        if self.over_seeds:
            rows.append(["probabilities averaged over seeds", *(figure_of(self.figures, n) for n in self.task.scores)])
        rows += [[title, *(figure_of(each, n) for n in self.task.scores)] for title, each in self.others.items()]
        baseline = self.figures["majority_baseline"]
        if self.task_name != "single_label":
            rows.append([f"always {baseline['label']}", *(Figure(baseline.get(name)) for name in self.task.scores)])
        return rows

    def verdict(self) -> str:
        """One sentence: what the run is worth, beside the best that is simpler."""
        first, title = next(iter(self.task.scores.items()))
        value, count = self.figure(first), f"{len(self.table.guids):,} {self.title}"
        if self.task_name != "single_label":
            baseline = self.figures["majority_baseline"]
            gain = self.task.sign * ((value.value or 0) - baseline[first])
            word = "better" if gain > 0 else "no better"
            return f"{title} {value} on {count}: {word} than always {baseline['label']} ({baseline[first]:.3f})."
        best = max(
            self.probes, key=lambda name: float((self.probes[name].answers == self.table.labels).mean()), default=None
        )
        rival = self.table.answers * 0 + self.table.label_names.index(self.figures["majority_baseline"]["label"])
        name = f"always answering {self.figures['majority_baseline']['label']}"
        if best is not None:
            rival, name = self.probes[best].answers, f"the best {PROBES[best].replace(', ', ' (')})"
        found = compare_accuracy(self.table.answers, rival, self.table.labels)
        classes = self.figures["per_class"]
        weakest = min(classes, key=lambda each: classes[each]["f1"])
        how = f"{format_points(found)} against {name}, {format_p(found.p_value)}"
        beats = "better than" if found.value > 0 else "worse than"
        told = (
            f"{beats} what is simpler ({how})"
            if found.p_value < ALPHA
            else f"not to be told from what is simpler ({how})"
        )
        return f"Accuracy {value} on {count}: {told}; weakest at {weakest}, with an F1 of {classes[weakest]['f1']:.2f}."

    def warnings(self) -> Iterator[str]:
        """Sentences on what a reader of the figures has to know."""
        num_rows = len(self.table.guids)
        if self.chosen_by:
            yield f"The best epoch was chosen by {self.chosen_by} on the very rows that are shown here, which flatters."
        if num_rows < FEW_ROWS:
            remedy = "" if self.seeds else "; train.py --folds judges all rows"
            yield f"Few rows: {num_rows} are judged, and every interval is wide{remedy}."
        if len(self.seeds) == 1:
            yield "One seed alone, which may be luck: train.py --seeds 3 shows how much."
        for name, found in self.figures.get("per_class", {}).items():
            if found["support"] >= FEW_OF_A_CLASS and found["recall"] < LITTLE_RECALL:
                yield f"Collapsed class: of {found['support']} rows of {name} {found['recall']:.0%} are found."
        if (self.figures.get("ece") or 0) > MUCH_ECE:
            yield f"Probabilities are {self.figures['ece']:.2f} off on average: they don't mean what they say."


def figure_of(figures: Mapping[str, Any], name: str) -> Figure:
    """A score with its interval."""
    return Figure(figures.get(name), figures.get(f"{name}_interval"))


def find_judged(folder: RunFolder, split: str | None) -> Judged:
    """The rows that chose nothing, where there are any: of folds all, else the test part, else the validation part.

    `InputError` where there are none with labels, or not those that are asked for.
    """
    if isinstance(folder, FoldsFolder):
        folder.check_complete()
        file, split = folder.predictions_oof_file, "test"
        seeds = [_read(path) for path in find_seed_files(folder.path).values()]
    else:
        files = folder.predictions_files
        split = split or next((part for part in ("test", "val") if files[part].is_file()), "val")
        if split not in files or not files[split].is_file():
            raise InputError(
                f"The run {str(folder.path)!r} has no predictions of its {split} rows, which a report shows."
            )
        file, seeds = files[split], []
    table, metrics = _read(file), folder.load_metrics() if folder.metrics_file.exists() else {}
    chosen = (metrics.get("best") or {}).get("metric") if split == "val" else None
    probes = _find_probes(folder, table) if name_task(table.labels) == "single_label" else {}
    return Judged(folder, split, table, seeds, chosen, probes)


def _read(path: Path) -> PredictionTable:
    table = read_predictions_csv(path, any_task=True).labelled()
    if not table.guids:
        raise InputError(f"None of the rows of {path} has a label, so there is nothing to report.")
    return table


def _find_probes(folder: RunFolder, table: PredictionTable) -> dict[str, PredictionTable]:
    """What the baselines that lie beside the run say of these rows, where they are of the same data."""
    beside, found = RunFolder(folder.path.absolute().parent / "baselines"), {}
    if not beside.is_run():
        return {}
    prints = [each.load_arguments()["environment"].get("data_fingerprint") for each in (beside, folder)]
    for name in PROBES:
        path = beside.path / f"{name}.csv"
        if prints[0] == prints[1] and path.is_file():
            probe = read_predictions_csv(path)
            places = {guid: row for row, guid in enumerate(probe.guids)}
            if set(probe.label_names) == {*table.label_names} and places.keys() >= {*table.guids}:
                rows = [places[guid] for guid in table.guids]
                probe = probe.with_classes(table.label_names).select(rows)
                found[name] = replace(probe, labels=table.labels)
    return found
