"""Temperature against logits of a known one, cross-fitting against shuffled labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax
from scores.drawn_answers import draw_rows, with_confidence

from evaluation.scores.abstention import abstain_out_of_fold
from evaluation.scores.calibration import (
    TEMPERATURE_BOUNDS,
    apply_temperature,
    draw_reliability,
    fit_out_of_fold,
    fit_temperature,
    reliability_bins,
)
from evaluation.scores.metrics import expected_calibration_error
from modeling.errors import InputError
from run_files.output import write_figure


def mean_loss(probabilities, labels, temperature):
    return -log_softmax(np.log(probabilities) / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_known_temperature_is_found_again(temperature):
    probabilities, labels, _ = draw_rows(20_000, temperature=temperature)
    assert fit_temperature(probabilities, labels) == pytest.approx(temperature, rel=0.04)


def test_no_temperature_of_a_grid_has_less_loss():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        probabilities, labels = rng.dirichlet([0.3, 0.5, 0.4], size=30), rng.integers(0, 3, 30)
        probabilities = np.maximum(probabilities, 1e-6) / np.maximum(probabilities, 1e-6).sum(axis=1, keepdims=True)
        found = mean_loss(probabilities, labels, fit_temperature(probabilities, labels))
        assert found <= min(mean_loss(probabilities, labels, value) for value in np.geomspace(*TEMPERATURE_BOUNDS, 200))


@pytest.mark.parametrize(
    ("confidence", "labels", "temperature"),
    [
        ([0.6, 0.9, 0.7, 0.8], [1, 1, 1, 1], TEMPERATURE_BOUNDS[0]),  # all right
        ([0.6, 0.9, 0.7, 0.8], [0, 0, 0, 1], TEMPERATURE_BOUNDS[1]),  # worse than by chance
        ([0.9, 0.95], [1, 1], TEMPERATURE_BOUNDS[0]),  # the loss is 0 in floating point well before the bound
        ([0.5] * 4, [0, 1, 1, 1], 1),  # it changes nothing
        ([1, 1, 0], [1, 1, 0], 1),
    ],
)
def test_temperature_without_a_minimum_is_a_bound_or_one(confidence, labels, temperature):
    assert fit_temperature(*with_confidence(confidence, labels)) == temperature


def test_scaling_keeps_answers_sums_and_zeros_finite():
    probabilities, _, _ = draw_rows(200)
    probabilities[0] = [1, 0, 0]
    for temperature in (0.05, 0.7, 20):
        scaled = apply_temperature(probabilities, temperature)
        assert np.isfinite(scaled).all()
        assert scaled.sum(axis=1) == pytest.approx(1)
        assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert apply_temperature(probabilities, 1) == pytest.approx(probabilities, abs=1e-7)
    twice = apply_temperature(apply_temperature(probabilities[1:], 2), 3)
    assert twice == pytest.approx(apply_temperature(probabilities[1:], 6))
    for temperature in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            apply_temperature(probabilities, temperature)


def test_rows_without_a_label_fit_nothing():
    probabilities, labels, folds = draw_rows(300, temperature=2)
    unlabelled = np.vstack([probabilities, np.eye(3)]), np.append(labels, [-100] * 3), np.append(folds, [0, 1, 2])
    assert fit_temperature(*unlabelled[:2]) == fit_temperature(probabilities, labels)
    assert fit_out_of_fold(*unlabelled) == fit_out_of_fold(probabilities, labels, folds)
    with pytest.raises(InputError, match="None of the 2 rows has a label"):
        fit_temperature([[0.5, 0.5]] * 2, [-100, -100])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "shape"),
        ([[0.5, float("nan")]], [0], "not finite"),
        ([[2.0, -1.0]], [0], "not between 0 and 1"),
        ([[0.5, 0.5]], [2], "allowed are 0 to 1"),
        ([[0.5, 0.5]], [-1], "allowed are 0 to 1"),
    ],
)
def test_what_is_no_probability_or_label_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(probabilities, labels)


def test_calibration_lowers_error_and_loss_of_a_model_that_is_too_sure():
    probabilities, labels, folds = draw_rows(temperature=2.5)
    result = fit_out_of_fold(probabilities, labels, folds)
    assert result["before"]["ece"] > 0.1
    assert result["after"]["ece"] < 0.03
    assert result["after"]["nll"] - result["before"]["nll"] == pytest.approx(result["nll_change"])
    scaled = np.empty_like(probabilities)
    for fold, temperature in result["fold_temperatures"].items():
        own = folds == int(fold)
        assert temperature == fit_temperature(probabilities[~own], labels[~own])
        scaled[own] = apply_temperature(probabilities[own], temperature)
    assert result["after"]["ece"] == expected_calibration_error(scaled, labels)
    assert result["after"]["nll"] == pytest.approx(mean_loss(scaled, labels, 1), abs=1e-6)
    low, high = result["nll_change_interval"]
    assert low < result["nll_change"] < high < 0
    assert result["temperature"] == fit_temperature(probabilities, labels)
    assert result["remarks"] == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_several_judgements_of_a_row_count_as_one_in_the_interval():
    probabilities, labels, folds = draw_rows(200, temperature=2)
    alone = fit_out_of_fold(probabilities, labels, folds)
    twice = [np.concatenate([column, column]) for column in (probabilities, labels, folds)]
    found = fit_out_of_fold(*twice, rows=np.tile(np.arange(200), 2))
    assert found["num_rows"] == 200
    assert found["nll_change_interval"] == pytest.approx(alone["nll_change_interval"])


def test_calibrated_model_is_said_to_gain_nothing_and_a_bound_is_said():
    (remark,) = fit_out_of_fold(*draw_rows(400))["remarks"]
    assert "does not clearly lower" in remark
    rows = with_confidence([0.6, 0.7, 0.8, 0.9], [1] * 4)
    remarks = fit_out_of_fold(*rows, [0, 0, 1, 1])["remarks"]
    assert remarks[0].startswith("The temperature (0.05) is at the end of what is searched")


def test_own_labels_change_the_other_folds_alone():
    probabilities, labels, folds = draw_rows(500, temperature=2)
    shuffled = labels.copy()
    shuffled[folds == 1] = np.random.default_rng(1).permutation(labels[folds == 1])
    found, other = (fit_out_of_fold(probabilities, each, folds)["fold_temperatures"] for each in (labels, shuffled))
    assert [fold for fold in found if found[fold] == other[fold]] == ["1"]


def test_fewer_than_two_folds_with_labels_are_refused():
    probabilities, labels, folds = draw_rows(50)
    for judge in (fit_out_of_fold, lambda *rows: abstain_out_of_fold(*rows, 0.5)):
        with pytest.raises(InputError, match="Got 1 folds with labelled rows"):
            judge(probabilities, np.where(folds == 3, labels, -100), folds)
        with pytest.raises(ValueError, match=r"columns of shapes \(50,\), \(49,\)"):
            judge(probabilities, labels, folds[1:])


def test_bins_equal_values_worked_out_by_hand():
    probabilities, labels = with_confidence([0.62, 0.65, 0.9, 1.0], [1, 0, 1, 0])
    bins = reliability_bins(probabilities, labels)
    assert [(number, count) for number, count in enumerate(bins["counts"]) if count] == [(9, 2), (13, 1), (14, 1)]
    assert [bins["confidence"][number] for number in (0, 9, 13, 14)] == [None, pytest.approx(0.635), 0.9, 1.0]
    assert [bins["accuracy"][number] for number in (0, 9, 13, 14)] == [None, 0.5, 1, 0]


def test_diagram_is_a_picture_of_the_figures(tmp_path):
    result, other = fit_out_of_fold(*draw_rows(500, temperature=2)), fit_out_of_fold(*draw_rows(500, seed=1))
    path = tmp_path / "new" / "reliability.png"
    write_figure(path, draw_reliability(result["before"], result["after"]))
    assert list(path.parent.iterdir()) == [path]
    first = np.asarray(Image.open(path).convert("L"))
    assert min(first.shape) > 600
    write_figure(path, draw_reliability(result["before"], other["after"]))
    changed = (np.asarray(Image.open(path).convert("L")) != first).any(axis=0)
    middle = len(changed) // 2
    assert changed[middle:].any()
    assert not changed[: middle - 10].any()
