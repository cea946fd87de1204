"""Runs set side by side: their scores, a test of each pair, and what a reader of the figures has to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.compare.pairs import TESTS, PairResult, compare_pairs
from evaluation.compare.runs import ComparedRun, Origin, align_runs, read_runs
from evaluation.scores.metrics import classification_metrics
from evaluation.scores.scoring import find_majority
from run_files.predictions_csv import PredictionTable


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
        runs: on the same N rows, in the order given.
        num_left_out: rows that only some of the runs judge, for --common_rows.
        majority: label, accuracy, macro_f1 and weighted_f1 of always answering the most frequent class.
        pairs: of the runs.
    """

    runs: list[ComparedRun]
    num_left_out: int
    majority: Mapping[str, Any]
    pairs: list[PairResult]

    @property
    def num_rows(self) -> int:
        """N"""
        return len(self.runs[0].table.guids)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the C classes."""
        return self.runs[0].table.label_names

    @property
    def sentences(self) -> list[str]:
        """What each pair comes to, a sentence for each score."""
        return [pair.sentence(name) for name in TESTS for pair in self.pairs]

    @property
    def remarks(self) -> list[str]:
        """Sentences on what the figures can't say."""
        return [*self._remarks_on_rows(), *self._remarks_on_seeds(), *self._remarks_on_scores()]

    def _remarks_on_rows(self) -> Iterable[str]:
        runs, num_rows = self.runs, f"{self.num_rows:,}"
        yield (
            f"The intervals are over the {num_rows} rows: they hold neither the variance of training nor any choice "
            "made on these rows, and those of differences are for each pair by itself."
        )
        if self.num_left_out:
            yield (
                f"{self.num_left_out:,} rows that not all runs judge are left out; the {num_rows} common ones are "
                "compared."
            )
        kinds = {run.kind for run in runs}
        if kinds == {"split"}:
            yield (
                f"These are the {num_rows} validation rows of one split: another split may give another order. "
                "train.py --folds judges every row once."
            )
        elif {"split", "folds"} <= kinds:
            yield "Some runs are of folds, some of one split: their models were trained on different numbers of rows."
        yield from _remark_on_origins({run.name: run.origin for run in runs}, runs[0].table.guids)
        if "folds" in kinds:
            yield "The models of a run of folds share most of their training rows: its rows are not quite independent."
        chosen = [f"{run.name} ({run.chosen_by})" for run in runs if run.chosen_by]
        if chosen:
            yield (
                "The best epoch was chosen on the very rows that are compared here, which flatters: "
                f"{', '.join(chosen)}."
            )
        if len(runs) > 2:
            yield f"The best of {len(runs)} runs is flattered: judge it on rows that none of them has seen."

    def _remarks_on_seeds(self) -> Iterable[str]:
        # A bare file doesn't say how many trainings it is of.
        num_seeds = {run.name: run.num_seeds for run in self.runs if run.kind != "file"}
        if any(count > 1 for count in num_seeds.values()):
            yield (
                "Figures are means over seeds ± standard deviation. The tests of pairs are on the mean probabilities "
                "of a run's seeds, whose own figures are the columns 'seeds averaged'."
            )
        if len(set(num_seeds.values())) > 1:
            yield (
                f"The runs have {', '.join(map(str, num_seeds.values()))} seeds: averaging over seeds tends to raise a "
                "score by itself, so the tests favour a run of more of them."
            )
        alone = [name for name, count in num_seeds.items() if count == 1]
        if alone:
            yield f"One seed alone, which may be luck: {', '.join(alone)}. train.py --folds K --seeds S shows how much."

    def _remarks_on_scores(self) -> Iterable[str]:
        label, always = self.majority["label"], self.majority["accuracy"]
        for run in self.runs:
            accuracy = run.scores.mean["accuracy"]
            if accuracy <= always:
                yield f"{run.name} ({accuracy:.3f}) does not beat always answering {label} ({always:.3f})."


def compare_runs(paths: Sequence[str], *, common_rows: bool = False) -> Comparison:
    """Read runs and compare them.

    Args:
        paths: two or more folders or files.
        common_rows: compare the rows that all judge, where some judge others too.

    Raises:
        InputError: a run can't be read, or they judge other rows, classes or labels.
    """
    found = read_runs(paths)
    runs = align_runs(found, common_rows=common_rows)
    num_left_out = len(set().union(*(run.table.guids for run in found))) - len(runs[0].table.guids)
    return Comparison(runs, num_left_out, _score_majority(runs[0].table), compare_pairs(runs))


def _score_majority(table: PredictionTable) -> dict[str, Any]:
    majority = find_majority(table.labels, table.label_names)
    always = np.eye(len(table.label_names))[[table.label_names.index(majority["label"])] * len(table.labels)]  # (N, C)
    metrics = classification_metrics(always, table.labels, table.label_names)
    return majority | {name: metrics[name] for name in ("macro_f1", "weighted_f1")}


def _remark_on_origins(origins: Mapping[str, Origin], guids: Sequence[str]) -> Iterable[str]:
    """Sentences on what differs between runs, by their names, beside their models; `guids` are the compared rows."""
    known = {name: origin for name, origin in origins.items() if origin.fold_of is not None}
    if len({origin.number_folds(guids) for origin in known.values()}) > 1:
        each = "; ".join(
            f"{name} {len(set(origin.fold_of.values()))} folds of seed {origin.seed}" for name, origin in known.items()
        )
        yield (
            f"The rows were dealt into folds in other ways ({each}): a row's judges in one run were trained on other "
            "rows than its judges in another. The same --folds, --seed and data give the same folds."
        )
    groups: dict[str, list[str]] = {}
    for name, origin in origins.items():
        if origin.fingerprint is not None:
            groups.setdefault(origin.fingerprint, []).append(name)
    if len(groups) > 1:
        yield (
            f"The hash of the data (data_fingerprint in config.yaml) is not the same in all runs "
            f"({'; '.join(map(', '.join, groups.values()))}): the rows, texts or pictures differ, or only their "
            "preparation (--text_cleaning, --labels, size of the pictures), which it covers too."
        )
