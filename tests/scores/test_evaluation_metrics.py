"""Metrics against values worked out by hand and by scikit-learn; intervals against resampling of rows."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluation.scores.metrics import (
    SentimentMetrics,
    bootstrap_intervals,
    classification_metrics,
    expected_calibration_error,
)
from evaluation.scores.scoring import score_predictions
from modeling.errors import InputError

NAMES = ["negative", "neutral", "positive"]
# Labels 0 0 0 1 2 2, predictions 0 0 2 1 2 1.
LABELS = [0, 0, 0, 1, 2, 2]
PROBABILITIES = [
    [0.9, 0.05, 0.05],
    [0.8, 0.1, 0.1],
    [0.2, 0.2, 0.6],
    [0.1, 0.8, 0.1],
    [0.1, 0.1, 0.8],
    [0.3, 0.4, 0.3],
]


def draw_rows(num_rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=num_rows, p=[0.3, 0.1, 0.6])
    predictions = np.where(rng.random(num_rows) < 0.7, labels, rng.choice(3, size=num_rows))
    return predictions, labels


def test_metrics_equal_values_worked_out_by_hand() -> None:
    metrics = classification_metrics(PROBABILITIES, LABELS, NAMES)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["confusion_matrix"] == [[2, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert metrics["per_class"]["negative"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert metrics["per_class"]["neutral"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert metrics["per_class"]["positive"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})
    assert metrics["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0.5) / 3)
    assert metrics["weighted_f1"] == pytest.approx((3 * 0.8 + 2 / 3 + 2 * 0.5) / 6)


def test_class_without_rows_and_predictions_counts_as_zero_in_macro_f1() -> None:
    metrics = classification_metrics([[1, 0, 0], [0, 0, 1]], [0, 2], NAMES)
    assert metrics["macro_f1"] == pytest.approx(2 / 3)
    assert metrics["per_class"]["neutral"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_ece_equals_value_worked_out_by_hand() -> None:
    # Bins of width 1/15: 0.62 and 0.65 share (0.6, 0.667], 0.9 is in (0.867, 0.933], 1.0 in the last.
    confidence = np.array([0.62, 0.65, 0.9, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 1])  # right, wrong, right, wrong
    by_hand = 2 / 4 * abs(0.5 - 0.635) + 1 / 4 * abs(1 - 0.9) + 1 / 4 * abs(0 - 1)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[1, 0, 0]], [0, 1], "shape"),
        (np.zeros((0, 3)), [], "None of the 0 rows"),
        ([[1, 0, 0]], [-100], "None of the 1 rows has a label"),
        ([[1, 0]], [0], r"\(1, 2\) for the classes negative, neutral, positive"),
        ([[1, 0, 0]], [3], "allowed are 0 to 2"),
        ([[float("nan"), 0, 0]], [0], "1 of 1 rows have a probability that is not finite"),
    ],
)
def test_metrics_refuse_what_they_cannot_score(probabilities: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(probabilities, labels, NAMES)


def test_metric_class_works_offline_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    cache = tmp_path / "cache"
    metric = SentimentMetrics(NAMES, cache_dir=str(cache))
    assert isinstance(metric, evaluate.Metric)
    result = metric.compute(predictions=PROBABILITIES, references=LABELS)
    assert result == classification_metrics(PROBABILITIES, LABELS, NAMES)
    assert not cache.exists()
    metric = SentimentMetrics(NAMES, keep_in_memory=False, cache_dir=str(cache))
    for part in (slice(2), slice(2, None)):
        metric.add_batch(predictions=PROBABILITIES[part], references=LABELS[part])
    assert metric.compute() == result


def test_bootstrap_agrees_with_resampling_of_rows() -> None:
    predictions, labels = draw_rows(120)
    rng = np.random.default_rng(1)
    accuracy, macro_f1 = [], []
    for _ in range(500):
        rows = rng.integers(0, len(labels), size=len(labels))
        accuracy.append((predictions[rows] == labels[rows]).mean())
        macro_f1.append(f1_score(labels[rows], predictions[rows], labels=range(3), average="macro", zero_division=0))
    intervals = bootstrap_intervals(predictions, labels, 3, num_resamples=20000)
    assert intervals["accuracy"] == pytest.approx(np.quantile(accuracy, [0.025, 0.975]), abs=0.02)
    assert intervals["macro_f1"] == pytest.approx(np.quantile(macro_f1, [0.025, 0.975]), abs=0.025)


def test_bootstrap_is_repeatable_and_leaves_global_random_state_alone() -> None:
    predictions, labels = draw_rows(50)
    before = np.random.get_state()[1].copy()
    assert bootstrap_intervals(predictions, labels, 3) == bootstrap_intervals(predictions, labels, 3)
    assert (np.random.get_state()[1] == before).all()
    assert bootstrap_intervals([1], [1], 3)["accuracy"] == (1.0, 1.0)  # one row is always drawn again


def test_score_leaves_out_unlabelled_rows_and_names_the_majority() -> None:
    metrics = score_predictions([*PROBABILITIES, [1, 0, 0]], [*LABELS, -100], NAMES)
    assert metrics["num_rows"] == 6
    assert metrics["accuracy_interval"][0] <= metrics["accuracy"] <= metrics["accuracy_interval"][1]
    assert metrics["majority_baseline"] == {"label": "negative", "accuracy": 0.5}
    assert json.loads(json.dumps(metrics)) == metrics
    with pytest.raises(InputError, match="None of the 2 rows has a label"):
        score_predictions([[1, 0, 0]] * 2, [-100, -100], NAMES)
