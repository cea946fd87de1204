"""Runs set side by side: their scores, a test of each pair, and what a reader of the figures has to know."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from evaluation.compare.runs import ComparedRun, Origin, align_runs, read_runs
from evaluation.scores import paired_tests
from evaluation.scores.metrics import SCORES, classification_metrics, find_majority
from evaluation.scores.paired_tests import ALPHA, POWER, Difference

TESTS = {"accuracy": "exact McNemar", "macro_f1": "paired bootstrap"}


@dataclass(frozen=True)
class PairResult:
    """Two runs on the same rows, of which only_first and only_second are those that one of them alone has right.

    By the score (`TESTS`) the differences, first minus second, and the p-values after Holm's correction over all
    num_pairs; `averaged` says whether one of them is the mean of seeds.
    """

    first: str
    second: str
    num_rows: int
    only_first: int
    only_second: int
    differences: dict[str, Difference]
    adjusted: dict[str, float]
    num_pairs: int
    averaged: bool

    def sentence(self, name: str) -> str:
        """Which run is better in a score, or that these data can't tell, and how many rows might."""
        first, second, difference = self.first, self.second, self.differences[name]
        p_value = format_p(self.adjusted[name]) + (" after Holm's correction" if self.num_pairs > 1 else "")
        test = f"{TESTS[name]}, {self.num_rows:,} rows" + (", seeds averaged" if self.averaged else "")
        if self.adjusted[name] >= ALPHA:
            return (
                f"These data cannot tell {first} and {second} apart in {SCORES[name]} (first minus second: "
                f"{format_points(difference)}, {p_value}, {test}); {self._way_out(difference)}."
            )
        if difference.value < 0:
            first, second, difference = second, first, difference.reversed()
        return f"{first} is better than {second}: {SCORES[name]} {format_points(difference)}, {p_value} ({test})."

    def _way_out(self, difference: Difference) -> str:
        if difference.num_rows_needed is None:
            return "the difference is exactly 0, so no number of rows follows that would tell them apart"
        more = difference.num_rows_needed - self.num_rows
        if more <= 0 and difference.p_value < ALPHA:
            return f"as the only pair, without the correction, they would have {format_p(difference.p_value)}"
        if more <= 0:  # of so few rows that the formula, which is for many, holds no more
            return "with the rates seen here, a few more rows might tell them apart"
        size = 10 ** max(math.floor(math.log10(more)) - 1, 0)  # two digits: it is known to no more of them
        return (
            f"with the rates seen here, about {math.ceil(more / size) * size:,} more rows would be needed to tell them "
            f"apart ({100 * POWER:.0f} % power)"
        )


def compare_pairs(runs: Sequence[ComparedRun]) -> list[PairResult]:
    """Test every pair of two or more runs of `align_runs`, a run of several seeds by its mean probabilities.

    A small p-value says that these trained models differ, not that other trainings of the same recipes would.
    """
    pairs = list(combinations(runs, 2))
    labels, num_classes = runs[0].table.labels, len(runs[0].table.label_names)
    answers = [(first.table.answers, second.table.answers) for first, second in pairs]
    differences = [
        {
            "accuracy": paired_tests.compare_accuracy(*each, labels),
            "macro_f1": paired_tests.compare_macro_f1(*each, labels, num_classes),
        }
        for each in answers
    ]
    adjusted = {name: paired_tests.adjust_holm([each[name].p_value for each in differences]) for name in TESTS}
    return [
        PairResult(
            first.name,
            second.name,
            len(labels),
            *paired_tests.count_discordant(*answers[number], labels),
            differences=differences[number],
            adjusted={name: adjusted[name][number] for name in TESTS},
            num_pairs=len(pairs),
            averaged=first.num_seeds > 1 or second.num_seeds > 1,
        )
        for number, (first, second) in enumerate(pairs)
    ]


def format_points(difference: Difference, *, unit: str = " points") -> str:
    """+2.1 points [0.8, 3.4]"""
    # The sum makes the -0.0 of a small negative number a 0.0.
    points, low, high = (round(100 * x, 1) + 0.0 for x in (difference.value, difference.low, difference.high))
    return f"{points:+.1f}{unit} [{low:.1f}, {high:.1f}]"


def format_p(p_value: float, *, symbol: str = "p = ") -> str:
    """p = 0.0042; what is below the level isn't rounded up to it."""
    if p_value < 1e-4:
        return f"{symbol.replace('=', '<') or '< '}0.0001"
    rounded = f"{p_value:.2g}"
    crosses = (p_value < ALPHA) != (float(rounded) < ALPHA)
    return symbol + (f"{math.floor(p_value * 1e4) / 1e4:.4f}" if crosses else rounded)


@dataclass(frozen=True)
class Comparison:
    """What `evaluate.py compare` shows.

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
    def sentences(self) -> list[str]:
        """What each pair comes to, a sentence for each score."""
        return [pair.sentence(name) for name in TESTS for pair in self.pairs]

    @property
    def remarks(self) -> list[str]:
        """Sentences on what the figures can't say."""
        kinds, num_rows, num_runs = {run.kind for run in self.runs}, f"{self.num_rows:,}", len(self.runs)
        chosen = ", ".join(f"{run.name} ({run.chosen_by})" for run in self.runs if run.chosen_by)
        # A bare file doesn't say how many trainings it is of.
        seeds = {run.name: run.num_seeds for run in self.runs if run.kind != "file"}
        counts, alone = list(seeds.values()), ", ".join(name for name, count in seeds.items() if count == 1)
        label, always = self.majority["label"], self.majority["accuracy"]
        scores = {run.name: run.scores.mean["accuracy"] for run in self.runs}
        beaten = ", ".join(f"{name} ({score:.3f})" for name, score in scores.items() if score <= always)
        rules: list[tuple[object, str]] = [
            (
                True,
                f"Intervals are over the {num_rows} rows: they hold no variance of training, no choice made on them.",
            ),
            (self.num_left_out, f"{self.num_left_out:,} rows that not all runs judge are left out."),
            (kinds == {"split"}, "These are the validation rows of one split; train.py --folds judges every row once."),
            (kinds >= {"split", "folds"}, "Some runs are of folds, some of one split: trained on fewer or more rows."),
            (
                "folds" in kinds,
                "The models of a run of folds share most training rows: they are not quite independent.",
            ),
            (chosen, f"The best epoch was chosen on the rows that are compared here, which flatters: {chosen}."),
            (num_runs > 2, f"The best of {num_runs} runs is flattered: judge it on rows that none of them has seen."),
            (max(counts, default=1) > 1, "Figures are means over seeds; pairs are tested on the seeds' mean answers."),
            (len(set(counts)) > 1, f"The runs have {str(counts)[1:-1]} seeds: averaging over more helps by itself."),
            (alone, f"One seed alone, which may be luck: {alone}. train.py --folds K --seeds S shows how much."),
            (beaten, f"No better than always answering {label} ({always:.3f}): {beaten}."),
        ]
        said = [sentence for applies, sentence in rules if applies]
        return [*said, *_remark_on_origins({run.name: run.origin for run in self.runs}, self.runs[0].table.guids)]


def compare_runs(paths: Sequence[str], *, common_rows: bool = False) -> Comparison:
    """Read two or more folders or files and compare them, on the `common_rows` alone if asked for."""
    found = read_runs(paths)
    runs = align_runs(found, common_rows=common_rows)
    table = runs[0].table
    num_left_out = len(set().union(*(run.table.guids for run in found))) - len(table.guids)
    majority = find_majority(table.labels, table.label_names)
    always = np.eye(len(table.label_names))[[table.label_names.index(majority["label"])] * len(table.labels)]  # (N, C)
    metrics = classification_metrics(always, table.labels, table.label_names)
    majority |= {name: metrics[name] for name in ("macro_f1", "weighted_f1")}
    return Comparison(runs, num_left_out, majority, compare_pairs(runs))


def _remark_on_origins(origins: Mapping[str, Origin], guids: Sequence[str]) -> Iterable[str]:
    """Sentences on what differs between runs, by their names, beside their models; `guids` are the compared rows."""
    folds = {name: origin.fold_of for name, origin in origins.items() if origin.fold_of is not None}
    if len({_number_folds(fold_of, guids) for fold_of in folds.values()}) > 1:
        each = "; ".join(
            f"{name} {len(set(fold_of.values()))} folds of seed {origins[name].seed}" for name, fold_of in folds.items()
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


def _number_folds(fold_of: Mapping[str, int], guids: Sequence[str]) -> tuple[int | None, ...]:
    """The fold of each row, numbered as they come, so that their order is no matter; None for a row of none."""
    numbers: dict[int | None, int | None] = {None: None}
    return tuple(numbers.setdefault(fold_of.get(guid), len(numbers)) for guid in guids)
