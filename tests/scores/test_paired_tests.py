"""Paired tests against hand-computed values, published ones, and simulations of what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, kstest
from sklearn.metrics import f1_score

from evaluation.scores import paired_tests
from evaluation.scores.paired_tests import (
    Difference,
    adjust_holm,
    compare_accuracy,
    compare_macro_f1,
    count_discordant,
    rows_for_mcnemar,
)

# Kinds of rows (label, answer of the first, answer of the second) of a source in which the first model is better.
KINDS = [(y, a, b) for y in range(3) for a in range(3) for b in range(3)]
WEIGHTS = np.array(
    [(0.3, 0.1, 0.6)[y] * (7 + 2 * (y == 0) if a == y else 1.5) * (6 if b == y else 1.5) for y, a, b in KINDS]
)
SOURCE = WEIGHTS / WEIGHTS.sum()


def draw_rows(num_rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and both models' answers, (N,) each."""
    kinds = np.random.default_rng(seed).choice(len(KINDS), size=num_rows, p=SOURCE)
    return tuple(np.array(KINDS)[kinds].T)


def make_rows(only_first: int, only_second: int, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of both and labels of two classes, with so many rows that one of them alone has right."""
    labels = np.zeros(num_rows, dtype=int)
    first, second = labels.copy(), labels.copy()
    second[:only_first] = 1
    first[only_first : only_first + only_second] = 1
    return first, second, labels


def macro_f1(labels: np.ndarray, answers: np.ndarray) -> float:
    return f1_score(labels, answers, labels=range(3), average="macro", zero_division=0)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (3, 3), (7, 15), (40, 20), (120, 161)])
def test_mcnemar_equals_both_tails_of_the_binomial(only_first: int, only_second: int) -> None:
    tail = binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
    rows = make_rows(only_first, only_second, 400)
    assert count_discordant(*rows) == (only_first, only_second)
    assert compare_accuracy(*rows).p_value == pytest.approx(min(1, 2 * tail))


def test_mcnemar_of_equal_answers_says_nothing() -> None:
    difference = compare_accuracy(*make_rows(0, 0, 44))
    assert (difference.value, difference.p_value, difference.num_rows_needed) == (0, 1, None)
    # z^2 / (N + z^2), the score interval of a share of 0 rows (Wilson).
    assert -difference.low == difference.high == pytest.approx(3.8415 / (44 + 3.8415), abs=1e-4)


def test_rows_that_both_have_wrong_in_other_ways_do_not_count_for_accuracy() -> None:
    difference = compare_accuracy([1, 1, 0, 0], [2, 2, 0, 1], [0, 0, 0, 0])
    assert (difference.value, difference.p_value) == (0.25, 1)


@pytest.mark.parametrize(
    ("only_first", "only_second", "num_rows", "interval"),
    [
        # Fagerland, Lydersen and Laake 2017, chapter 8, by the R package contingencytables.
        (6, 16, 161, (-0.1240, -0.0054)),
        (1, 7, 21, (-0.5172, -0.0260)),
    ],
)
def test_interval_of_accuracy_equals_published_one(
    only_first: int, only_second: int, num_rows: int, interval: tuple[float, float]
) -> None:
    difference = compare_accuracy(*make_rows(only_first, only_second, num_rows))
    assert (difference.low, difference.high) == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize("num_rows", [1, 2, 30])
def test_interval_of_accuracy_stays_in_bounds_at_the_extremes(num_rows: int) -> None:
    difference = compare_accuracy(*make_rows(num_rows, 0, num_rows))
    assert difference.high == difference.value == 1
    assert -1 < difference.low < 1


def test_bootstrap_of_the_difference_agrees_with_resampling_of_rows() -> None:
    labels, first, second = draw_rows(120, seed=2)
    rng, drawn = np.random.default_rng(3), []
    for _ in range(250):
        rows = rng.integers(0, 120, size=120)
        drawn.append(macro_f1(labels[rows], first[rows]) - macro_f1(labels[rows], second[rows]))
    difference = compare_macro_f1(first, second, labels, 3)
    assert difference.value == pytest.approx(macro_f1(labels, first) - macro_f1(labels, second))
    assert (difference.low, difference.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    tail = min(np.mean(np.array(drawn) <= 0), np.mean(np.array(drawn) >= 0))
    assert difference.p_value == pytest.approx(2 * tail, abs=0.12)


def test_bootstrap_is_paired() -> None:
    """Models that err alike are told apart by few rows; as if they were independent, they would not be."""
    labels = np.arange(300) % 3
    first = np.where(np.arange(300) < 90, (labels + 1) % 3, labels)
    second = np.where(np.arange(300) < 105, (labels + 1) % 3, labels)
    difference = compare_macro_f1(first, second, labels, 3)
    assert difference.p_value < 0.01
    assert difference.low > 0


def test_p_values_are_uniform_where_models_do_not_differ() -> None:
    p_values = {"accuracy": [], "macro_f1": []}
    for seed in range(400):
        labels, first, second = draw_rows(300, seed=seed)
        # Exchanged in half of the rows, at random, the models are equals.
        swap = np.random.default_rng(1000 + seed).random(300) < 0.5
        first, second = np.where(swap, second, first), np.where(swap, first, second)
        p_values["accuracy"].append(compare_accuracy(first, second, labels).p_value)
        p_values["macro_f1"].append(compare_macro_f1(first, second, labels, 3, num_resamples=400, seed=seed).p_value)
    assert kstest(p_values["macro_f1"], "uniform").pvalue > 0.01
    assert 0.025 <= np.mean(np.array(p_values["macro_f1"]) < 0.05) <= 0.08
    # An exact test never claims too much, and loses some for its steps.
    assert 0.01 <= np.mean(np.array(p_values["accuracy"]) < 0.05) <= 0.055


@pytest.mark.parametrize("num_rows", [0, 1, 4, 5])
def test_few_rows_that_differ_are_never_enough(num_rows: int) -> None:
    first, second, labels = make_rows(num_rows, 0, max(num_rows, 1))
    for difference in (compare_accuracy(first, second, labels), compare_macro_f1(first, second, labels, 2)):
        assert difference.p_value == pytest.approx(min(1, 2 / 2**num_rows))


def test_bootstrap_is_repeatable_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, first, second = draw_rows(50, seed=5)
    before = np.random.get_state()[1].copy()
    whole = compare_macro_f1(first, second, labels, 3, num_resamples=100)
    monkeypatch.setattr(paired_tests, "RESAMPLES_AT_A_TIME", 7)
    assert compare_macro_f1(first, second, labels, 3, num_resamples=100) == whole
    assert (np.random.get_state()[1] == before).all()


def test_equal_scores_of_other_classes_differ_by_nothing() -> None:
    # The first errs in class 0 as the second one does in class 2; the sums of F1 differ in their order alone.
    labels = np.repeat([0, 1, 2], 10)
    first, second = labels.copy(), labels.copy()
    first[:3], second[-3:] = 1, 1
    difference = compare_macro_f1(first, second, labels, 3, num_resamples=100)
    assert difference.value == 0
    assert difference.num_rows_needed is None


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02, 0.001, 0.3], [0.06, 0.06, 0.004, 0.3]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_equals_values_worked_out_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    assert adjust_holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize("shares", [(0.06, 0.04), (0.12, 0.1), (0.05, 0.01)])
def test_rows_for_mcnemar_give_its_power(shares: tuple[float, float]) -> None:
    num_rows = round(rows_for_mcnemar(sum(shares), shares[0] - shares[1]))
    counts = np.random.default_rng(0).multinomial(num_rows, [*shares, 1 - sum(shares)], size=4000)
    p_values = np.minimum(1, 2 * binom.cdf(counts[:, :2].min(axis=1), counts[:, :2].sum(axis=1), 0.5))
    assert 0.75 <= np.mean(p_values < 0.05) <= 0.83


def test_rows_for_macro_f1_give_the_power_of_the_bootstrap() -> None:
    labels, first, second = draw_rows(40_000, seed=6)  # many, for a difference near the one of the source
    known = compare_macro_f1(first, second, labels, 3)
    num_rows = round(known.num_rows_needed)
    assert 100 < num_rows < 5000
    found: list[Difference] = []
    for seed in range(300):
        labels, first, second = draw_rows(num_rows, seed=seed)
        found.append(compare_macro_f1(first, second, labels, 3, num_resamples=400, seed=seed))
    assert 0.73 <= np.mean([each.p_value < 0.05 for each in found]) <= 0.87
