"""Whether two models of the same rows differ. Legend: N rows, C classes, R resamples, K kinds of rows.

The tests are paired: what matters is the rows that one model has right and the other one wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import binomtest

from evaluation.scores.metrics import Floats, Integers, macro_f1_of_counts

ALPHA = 0.05
POWER = 0.8
# Quantiles of the standard normal distribution, for the two-sided level and for the power.
LEVEL_Z, POWER_Z = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(POWER)
# How many resamples are held in memory at a time; the draws are the same for any number.
RESAMPLES_AT_A_TIME = 500


@dataclass(frozen=True)
class Difference:
    """A metric of the first model minus that of the second one, with its 95 % interval and two-sided p-value.

    A test at 5 % finds a difference of this size with 80 % power in num_rows_needed rows; None where it is 0.
    """

    value: float
    low: float
    high: float
    p_value: float
    num_rows_needed: float | None

    def reversed(self) -> Difference:
        """The second's metric minus the first's."""
        return Difference(-self.value, -self.high, -self.low, self.p_value, self.num_rows_needed)


def compare_accuracy(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> Difference:
    """The exact test of McNemar (1947) with the score interval of Tango (1998), of N >= 1 class ids each.

    The p-value is that of a fair coin thrown once for each row that one model alone has right. The interval inverts
    the asymptotic form of the same test, so both nearly always agree; it has a width even where no row tells the
    models apart.
    """
    only_first, only_second = count_discordant(first, second, labels)
    num_rows, discordant = len(np.asarray(labels)), only_first + only_second
    value = (only_first - only_second) / num_rows
    low, high = _tango_limit(only_first, only_second, num_rows), -_tango_limit(only_second, only_first, num_rows)
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    needed = rows_for_mcnemar(discordant / num_rows, value) if value else None
    return Difference(value, low, high, p_value, needed)


def count_discordant(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> tuple[int, int]:
    """How many of the N rows the first model alone has right, and how many the second one alone."""
    first_right, second_right = (np.asarray(answers) == np.asarray(labels) for answers in (first, second))
    return int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())


def compare_macro_f1(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, num_classes: int, num_resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Paired percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13; Berg-Kirkpatrick et al. 2012).

    Both models' answers to a row are drawn together, as counts of kinds of rows (`metrics.bootstrap_intervals`).
    The p-value is twice the smaller share of resamples on either side of 0, with one added to count and number
    (Davison and Hinkley 1997, section 4.2), so that it is never 0. Few rows make the bootstrap bold: the p-value is at
    least 2 / 2^M, the smallest that an exact test can give which swaps the answers to the M rows that differ in them.
    """
    (known, *answers), counts = np.unique(np.vstack([labels, first, second]), axis=1, return_counts=True)  # (K,) each

    def difference_of(counts: Integers) -> Floats:
        """Counts (R, K) -> (R,), rounded, so that equal scores summed up in another order differ by 0."""
        ours, theirs = (macro_f1_of_counts(counts, known, each, num_classes) for each in answers)
        return (ours - theirs).round(12)

    num_rows = int(counts.sum())
    value = float(difference_of(counts[None])[0])
    rng, starts = np.random.default_rng(seed), range(0, num_resamples, RESAMPLES_AT_A_TIME)
    sizes = (min(RESAMPLES_AT_A_TIME, num_resamples - start) for start in starts)
    drawn = [difference_of(rng.multinomial(num_rows, counts / num_rows, size=size)) for size in sizes]
    differences = np.concatenate(drawn)  # (R,)
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    num_differing = int(counts[answers[0] != answers[1]].sum())
    p_value = max(2 * (smaller + 1) / (num_resamples + 1), 2.0 * 0.5**num_differing)
    low, high = np.quantile(differences, (ALPHA / 2, 1 - ALPHA / 2)).tolist()
    # Of an estimate that is nearly normal; its standard error shrinks as the root of the rows.
    scale = (LEVEL_Z + POWER_Z) * float(differences.std(ddof=1))
    needed = num_rows * (scale / value) ** 2 if value else None
    return Difference(value, low, high, min(1.0, p_value), needed)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction: all claims at an adjusted p < a together err with a probability below a."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.arange(len(order), 0, -1) * np.asarray(p_values)[order]).clip(max=1)
    return adjusted.tolist()


def rows_for_mcnemar(discordant: float, difference: float) -> float:
    """Rows for McNemar's test to find a difference of accuracies, not 0 (Connor 1987, Biometrics 43, 207-211).

    `discordant` is the share of the rows that one model alone has right.
    """
    root = LEVEL_Z * math.sqrt(discordant) + POWER_Z * math.sqrt(discordant - difference**2)
    return (root / difference) ** 2


def _tango_limit(only_first: int, only_second: int, num_rows: int) -> float:
    """The lower end of the interval of the difference (Tango 1998, Statistics in Medicine 17, 891-908)."""
    estimate = (only_first - only_second) / num_rows

    def distance(difference: float) -> float:
        # The likeliest share of rows that the second alone has right if this is the difference: root of ax^2 + bx + c.
        a = 2 * num_rows
        b = -only_first - only_second + (2 * num_rows - only_first + only_second) * difference
        c = -only_second * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = num_rows * (2 * share + difference * (1 - difference))
        return num_rows * (estimate - difference) - LEVEL_Z * math.sqrt(max(variance, 0.0))

    if only_second == num_rows:
        return -1.0
    # A step below the estimate, which itself solves the equation where no row tells the models apart.
    return float(brentq(distance, -1.0, estimate - 1e-12))
