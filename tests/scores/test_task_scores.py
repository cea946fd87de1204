"""Scores of several labels, of numbers and of two classes, against scikit-learn and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from evaluation.scores.resampling import auroc, average_precision, mid_ranks
from evaluation.scores.scoring import format_metrics, score_predictions
from evaluation.scores.thresholds import answer_rows, choose_thresholds
from modeling.errors import InputError

NAMES = ["food", "sport", "music"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labelled(rng):
    """Probabilities (200, 3), with ties, and labels (200, 3) that go with them."""
    values = rng.random((200, 3)).round(2)
    return values, (rng.random((200, 3)) < values * [0.9, 0.5, 0.2]).astype(float)


def test_multi_label_scores_are_those_of_scikit_learn(labelled):
    values, labels = labelled
    found, answers = score_predictions(values, labels, NAMES, np.array([0.5, 0.4, 0.9])), values >= [0.5, 0.4, 0.9]

    for kind in ("micro", "macro", "weighted"):
        assert found[f"{kind}_f1"] == pytest.approx(f1_score(labels, answers, average=kind))
    assert found["map"] == pytest.approx(average_precision_score(labels, values, average="macro"))
    assert found["subset_accuracy"] == pytest.approx((labels == answers).all(axis=1).mean())
    low, high = found["map_interval"]
    assert low < found["map"] < high
    assert high - low < 0.2
    assert "every label" in format_metrics(found, title="validation")


def test_threshold_of_a_class_maximises_its_f1(labelled):
    values, labels = labelled
    for column, threshold in enumerate(choose_thresholds(values, labels)):
        tried = [f1_score(labels[:, column], values[:, column] >= each) for each in np.linspace(0, 1, 201)]
        assert f1_score(labels[:, column], values[:, column] >= threshold) == pytest.approx(max(tried))
    assert choose_thresholds(values, np.zeros_like(labels)).tolist() == [0.5] * 3


def test_validation_rows_are_answered_by_thresholds_of_the_other_rows(rng):
    labels = (rng.random((300, 1)) < 0.3).astype(float)
    noise = rng.random((300, 1))
    fitted = f1_score(labels, noise >= choose_thresholds(noise, labels))
    honest = f1_score(labels, answer_rows(noise, labels))
    assert honest <= fitted
    changed = labels.copy()
    changed[::5] = 1 - changed[::5]  # of one part, whose thresholds are the others'
    assert (answer_rows(noise, labels) == answer_rows(noise, changed))[::5].all()


def test_numbers_are_scored_as_by_scipy(rng):
    labels = rng.integers(1, 6, 200).astype(np.float32)
    answers = labels + rng.normal(0, 1, 200)
    found = score_predictions(answers[:, None], labels, ["value"])

    assert found["mae"] == pytest.approx(np.abs(answers - labels).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(answers - labels).mean()))
    assert found["pearson"] == pytest.approx(pearsonr(answers, labels).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(answers, labels).statistic)
    assert found["rounded_accuracy"] == pytest.approx((answers.round().clip(1, 5) == labels).mean())
    assert all(
        found[f"{name}_interval"][0] < found[name] < found[f"{name}_interval"][1] for name in ("mae", "spearman")
    )
    assert "rounded_accuracy" not in score_predictions(answers[:, None], labels + 0.5, ["value"])


def test_rows_without_a_label_count_nowhere_and_constants_have_no_correlation():
    labels = np.array([1.0, 2.0, math.nan, 4.0])
    found = score_predictions(np.full((4, 1), 2.0), labels, ["value"])
    assert (found["num_rows"], found["mae"], found["pearson"]) == (3, 1.0, None)
    assert "Pearson -" in format_metrics(found, title="validation")
    with pytest.raises(InputError, match="nothing to score"):
        score_predictions(np.ones((2, 1)), np.full(2, math.nan), ["value"])


def test_two_classes_have_ranking_scores_and_three_have_not(rng):
    ones = rng.random(150).round(1)
    labels = (rng.random(150) < ones).astype(np.int64)
    found = score_predictions(np.stack([1 - ones, ones], axis=1), labels, ["no", "yes"])
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, ones))
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, ones))
    low, high = found["auroc_interval"]
    assert low < found["auroc"] < high
    assert "AUROC" in format_metrics(found, title="validation")
    assert "auroc" not in score_predictions(np.eye(3), np.arange(3), NAMES)
    alone = score_predictions(np.stack([1 - ones, ones], axis=1), np.zeros(150, dtype=np.int64), ["no", "yes"])
    assert (alone["auroc"], alone["average_precision"]) == (None, None)


def test_weights_score_resamples_as_if_their_rows_were_repeated(rng):
    values, positive = rng.random(60).round(1), (rng.random(60) < 0.4).astype(float)
    rows = rng.integers(60, size=60)
    weights = np.bincount(rows, minlength=60)[None].astype(float)
    assert auroc(positive, values, weights)[0] == pytest.approx(roc_auc_score(positive[rows], values[rows]))
    expected = average_precision_score(positive[rows], values[rows])
    assert average_precision(positive, values, weights)[0] == pytest.approx(expected)
    assert mid_ranks(np.array([3.0, 1.0, 3.0]), np.ones((1, 3))).tolist() == [[2.5, 1.0, 2.5]]
