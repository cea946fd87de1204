"""Each pair of runs: tests, their correction for the number of pairs, and what follows in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from evaluation.compare.runs import ComparedRun
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
TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class PairResult:
    """Two runs on the same N rows.

    Attributes:
        first, second: names of the runs.
        num_rows: N.
        only_first, only_second: rows that one of them alone has right.
        differences: by the metric (`TESTS`), first minus second.
        adjusted: p-values by the metric, after Holm's correction over all pairs.
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

    def sentence(self, metric: str) -> str:
        """Which run is better in a metric, or that these data can't tell, and how many rows might."""
        if self.adjusted[metric] >= ALPHA:
            return self._undecided(metric)
        difference = self.differences[metric]
        better, worse, figures = self.first, self.second, (difference.value, difference.low, difference.high)
        if difference.value < 0:
            better, worse = worse, better
            figures = (-difference.value, -difference.high, -difference.low)
        return (
            f"{better} is better than {worse}: {TITLES[metric]} {format_points(*figures)}, {self._p(metric)} "
            f"({self._test(metric)})."
        )

    def _undecided(self, metric: str) -> str:
        difference = self.differences[metric]
        points = format_points(difference.value, difference.low, difference.high)
        return (
            f"These data cannot tell {self.first} and {self.second} apart in {TITLES[metric]} (first minus second: "
            f"{points}, {self._p(metric)}, {self._test(metric)}); {self._way_out(difference)}."
        )

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
        return (
            f"with the rates seen here, about {_round_up(more):,} more rows would be needed to tell them apart "
            f"({100 * POWER:.0f} % power)"
        )

    def _p(self, metric: str) -> str:
        return format_p(self.adjusted[metric]) + (" after Holm's correction" if self.num_pairs > 1 else "")

    def _test(self, metric: str) -> str:
        return f"{TESTS[metric]}, {self.num_rows:,} rows" + (", seeds averaged" if self.averaged else "")


def compare_pairs(runs: Sequence[ComparedRun]) -> list[PairResult]:
    """Test every pair of runs on the same rows.

    A run of several seeds is tested by the mean probabilities of its seeds: one answer per row, as the tests need it.
    The rows are drawn from their source, the seeds and the training rows are given: a small p-value says that these
    trained models differ, not that other trainings of the same recipes would.

    Args:
        runs: two or more, of `align_runs`.
    """
    pairs = list(combinations(runs, 2))
    differences = [_compare(first, second) for first, second in pairs]
    adjusted = {metric: adjust_holm([each[metric].p_value for each in differences]) for metric in TESTS}
    return [
        PairResult(
            first.name,
            second.name,
            len(first.table.guids),
            *count_discordant(first.table.answers, second.table.answers, first.table.labels),
            differences=differences[number],
            adjusted={metric: adjusted[metric][number] for metric in TESTS},
            num_pairs=len(pairs),
            averaged=len(first.judged) > 1 or len(second.judged) > 1,
        )
        for number, (first, second) in enumerate(pairs)
    ]


def describe_pairs(pairs: Sequence[PairResult]) -> list[list[str]]:
    """The pairs as rows of text, the header first."""
    header = ["first - second", "only first right", "only second right"]
    for title in TITLES.values():
        header += [f"{title}, points", "p", "p (Holm)"]
    rows = [header if len(pairs) > 1 else [name for name in header if name != "p (Holm)"]]
    for pair in pairs:
        row = [f"{pair.first} - {pair.second}", f"{pair.only_first:,}", f"{pair.only_second:,}"]
        for metric, difference in pair.differences.items():
            row += [format_points(difference.value, difference.low, difference.high, unit="")]
            row += [format_p(difference.p_value).removeprefix("p = ").removeprefix("p ")]
            if pair.num_pairs > 1:
                row += [format_p(pair.adjusted[metric]).removeprefix("p = ").removeprefix("p ")]
        rows.append(row)
    return rows


def format_points(value: float, low: float, high: float, *, unit: str = " points") -> str:
    """+2.1 points [0.8, 3.4]"""
    # The sum makes the -0.0 of a small negative number a 0.0.
    points, *bounds = (round(100 * figure, 1) + 0.0 for figure in (value, low, high))
    return f"{points:+.1f}{unit} [{bounds[0]:.1f}, {bounds[1]:.1f}]"


def format_p(p_value: float) -> str:
    """p = 0.0042; what is below the level isn't rounded up to it."""
    if p_value < 1e-4:
        return "p < 0.0001"
    rounded = f"{p_value:.2g}"
    crosses = (p_value < ALPHA) != (float(rounded) < ALPHA)
    return f"p = {math.floor(p_value * 1e4) / 1e4:.4f}" if crosses else f"p = {rounded}"


def _compare(first: ComparedRun, second: ComparedRun) -> dict[str, Difference]:
    answers, labels = (first.table.answers, second.table.answers), first.table.labels
    return {
        "accuracy": compare_accuracy(*answers, labels),
        "macro_f1": compare_macro_f1(*answers, labels, len(first.table.label_names)),
    }


def _round_up(number: float) -> int:
    """To two digits: it is known to no more of them."""
    size = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / size) * size
