"""Each pair of runs: tests, their correction for the number of pairs, and what follows in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from evaluation.compare.runs import ComparedRun
from evaluation.scores.metrics import SCORES
from evaluation.scores.paired_tests import (
    ALPHA,
    POWER,
    Difference,
    adjust_holm,
    compare_accuracy,
    compare_macro_f1,
    count_discordant,
)

TESTS = {"accuracy": "exact McNemar", "macro_f1": "paired bootstrap"}


@dataclass(frozen=True)
class PairResult:
    """Two runs on the same N rows.

    Attributes:
        first, second: names of the runs.
        num_rows: N.
        only_first, only_second: rows that one of them alone has right.
        differences: by the score (`TESTS`), first minus second.
        adjusted: p-values by the score, after Holm's correction over all pairs.
        num_pairs: that were compared.
        averaged: whether one of them is the mean of seeds.
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
            return (
                "the difference is exactly 0, so no number of rows that would tell them apart follows from these data"
            )
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
    """Test every pair of two or more runs of `align_runs`.

    A run of several seeds is tested by the mean probabilities of its seeds: one answer per row, as the tests need it.
    The rows are drawn from their source, the seeds and the training rows are given: a small p-value says that these
    trained models differ, not that other trainings of the same recipes would.
    """
    pairs = list(combinations(runs, 2))
    labels, num_classes = runs[0].table.labels, len(runs[0].table.label_names)
    answers = [(first.table.answers, second.table.answers) for first, second in pairs]
    differences = [
        {"accuracy": compare_accuracy(*each, labels), "macro_f1": compare_macro_f1(*each, labels, num_classes)}
        for each in answers
    ]
    adjusted = {name: adjust_holm([each[name].p_value for each in differences]) for name in TESTS}
    return [
        PairResult(
            first.name,
            second.name,
            len(labels),
            *count_discordant(*answers[number], labels),
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
