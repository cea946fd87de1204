"""Temperature against logits of a known one, cross-fitting against shuffled labels, thresholds against brute force."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax

from data_utils.errors import InputError
from evaluation.abstention import MIN_ANSWERED, abstain_out_of_fold, abstain_threshold, format_abstention
from evaluation.calibration import (
    TEMPERATURE_BOUNDS,
    apply_temperature,
    calibrate_out_of_fold,
    draw_reliability,
    fit_out_of_fold,
    fit_temperature,
    reliability_bins,
)
from evaluation.metrics import expected_calibration_error


def draw_rows(num_rows=3000, *, temperature=1.0, seed=0, num_classes=3):
    """Probabilities whose calibrated form is had at `temperature`, labels drawn from that form, and five folds."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((num_rows, num_classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((num_rows, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1), labels, np.arange(num_rows) % 5


def mean_loss(probabilities, labels, temperature):
    return -log_softmax(np.log(probabilities) / temperature, axis=1)[np.arange(len(labels)), labels].mean()


def with_confidence(confidence, correct):
    """Two classes: class 1 is predicted with `confidence`; the labels."""
    confidence = np.asarray(confidence, dtype=float)
    return np.stack([1 - confidence, confidence], axis=1), np.asarray(correct, dtype=int)


# Temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_known_temperature_is_found_again(temperature):
    probabilities, labels, _ = draw_rows(20_000, temperature=temperature)
    assert fit_temperature(probabilities, labels) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("seed", range(4))
def test_no_temperature_of_a_grid_has_less_loss(seed):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet([0.3, 0.5, 0.4], size=30), rng.integers(0, 3, 30)
    probabilities = np.maximum(probabilities, 1e-6) / np.maximum(probabilities, 1e-6).sum(axis=1, keepdims=True)
    found = mean_loss(probabilities, labels, fit_temperature(probabilities, labels))
    assert found <= min(mean_loss(probabilities, labels, value) for value in np.geomspace(*TEMPERATURE_BOUNDS, 400))


def test_rows_that_are_all_right_or_worse_than_chance_give_the_bounds():
    unsure, _ = with_confidence([0.6, 0.9, 0.7, 0.8], [1, 1, 1, 1])
    assert fit_temperature(unsure, [1, 1, 1, 1]) == TEMPERATURE_BOUNDS[0]
    assert fit_temperature(unsure, [0, 0, 0, 1]) == TEMPERATURE_BOUNDS[1]
    surer, labels = with_confidence([0.9, 0.95], [1, 1])  # the loss is 0 in floating point well before the bound
    assert fit_temperature(surer, labels) == TEMPERATURE_BOUNDS[0]


def test_temperature_that_changes_nothing_is_one():
    assert fit_temperature(np.full((4, 3), 1 / 3), [0, 1, 2, 2]) == 1
    assert fit_temperature(np.eye(3), [0, 1, 2]) == 1


def test_labels_of_one_class_alone_are_no_obstacle():
    probabilities, labels = with_confidence([0.9] * 10, [1] * 8 + [0] * 2)
    # One kind of row: the loss is least where its confidence is its accuracy.
    one_class = np.where(labels[:, None] == 1, probabilities, probabilities[:, ::-1])  # every label 1, 8 of 10 right
    temperature = fit_temperature(one_class, np.ones(10))
    assert apply_temperature(one_class, temperature).max(axis=1) == pytest.approx(0.8, abs=1e-4)


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


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        apply_temperature([[0.5, 0.5]], temperature)


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


# Cross-fitting


def test_calibration_lowers_error_and_loss_of_a_model_that_is_too_sure():
    probabilities, labels, folds = draw_rows(temperature=2.5)
    result = fit_out_of_fold(probabilities, labels, folds)
    assert result["before"]["ece"] > 0.1
    assert result["after"]["ece"] < 0.03
    assert result["after"]["nll"] - result["before"]["nll"] == pytest.approx(result["nll_change"])
    scaled, temperatures = calibrate_out_of_fold(probabilities, labels, folds)
    assert result["fold_temperatures"] == temperatures
    assert result["after"]["ece"] == expected_calibration_error(scaled, labels)
    assert result["after"]["nll"] == pytest.approx(mean_loss(scaled, labels, 1), abs=1e-6)
    low, high = result["nll_change_interval"]
    assert low < result["nll_change"] < high < 0
    assert result["temperature"] == fit_temperature(probabilities, labels)
    assert result["remarks"] == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_calibrated_model_is_said_to_gain_nothing():
    result = fit_out_of_fold(*draw_rows(400))
    assert ["does not clearly lower" in remark for remark in result["remarks"]] == [True]


def test_temperature_at_a_bound_is_said():
    probabilities, _ = with_confidence([0.6, 0.7, 0.8, 0.9], [1] * 4)
    remarks = fit_out_of_fold(probabilities, [1] * 4, [0, 0, 1, 1])["remarks"]
    assert remarks[0].startswith("The temperature (0.05) is at the end of what is searched")


def test_own_labels_change_the_other_folds_alone():
    probabilities, labels, folds = draw_rows(500, temperature=2)
    scaled, temperatures = calibrate_out_of_fold(probabilities, labels, folds)
    shuffled = labels.copy()
    shuffled[folds == 1] = np.random.default_rng(1).permutation(labels[folds == 1])
    other_scaled, other_temperatures = calibrate_out_of_fold(probabilities, shuffled, folds)
    assert np.array_equal(scaled[folds == 1], other_scaled[folds == 1])
    assert [fold for fold in temperatures if temperatures[fold] == other_temperatures[fold]] == ["1"]
    for fold in (0, 2, 3, 4):
        assert not np.allclose(scaled[folds == fold], other_scaled[folds == fold], atol=1e-4)
        expected = apply_temperature(probabilities[folds == fold], temperatures[str(fold)])
        assert np.array_equal(scaled[folds == fold], expected)


def test_fewer_than_two_folds_with_labels_are_refused():
    probabilities, labels, folds = draw_rows(50)
    for judge in (calibrate_out_of_fold, lambda *rows: abstain_out_of_fold(*rows, 0.5)):
        with pytest.raises(InputError, match="Got 1 folds with labelled rows"):
            judge(probabilities, np.where(folds == 3, labels, -100), folds)
        with pytest.raises(ValueError, match="folds of shape"):
            judge(probabilities, labels, folds[1:])


# Reliability


def test_bins_equal_values_worked_out_by_hand():
    probabilities, labels = with_confidence([0.62, 0.65, 0.9, 1.0], [1, 0, 1, 0])
    bins = reliability_bins(probabilities, labels)
    assert [(number, count) for number, count in enumerate(bins["counts"]) if count] == [(9, 2), (13, 1), (14, 1)]
    assert [bins["confidence"][number] for number in (0, 9, 13, 14)] == [None, pytest.approx(0.635), 0.9, 1.0]
    assert [bins["accuracy"][number] for number in (0, 9, 13, 14)] == [None, 0.5, 1, 0]
    assert reliability_bins(np.array([[0.5, 0.5], [0.4, 0.6]]), np.array([0, 1]), num_bins=2)["counts"] == [1, 1]


def test_bins_make_up_the_expected_calibration_error():
    probabilities, labels, _ = draw_rows(700, temperature=1.7)
    bins = reliability_bins(probabilities, labels)
    gaps = [
        count / 700 * abs(accuracy - confidence)
        for count, accuracy, confidence in zip(bins["counts"], bins["accuracy"], bins["confidence"], strict=True)
        if count
    ]
    assert sum(gaps) == pytest.approx(expected_calibration_error(probabilities, labels))
    assert sum(bins["counts"]) == 700


def test_diagram_is_a_picture_of_the_figures(tmp_path):
    result, other = fit_out_of_fold(*draw_rows(500, temperature=2)), fit_out_of_fold(*draw_rows(500, seed=1))
    path = tmp_path / "new" / "reliability.png"
    draw_reliability(path, result["before"], result["after"])
    assert list(path.parent.iterdir()) == [path]
    first = np.asarray(Image.open(path).convert("L"))
    assert min(first.shape) > 600
    draw_reliability(path, result["before"], other["after"])
    changed = (np.asarray(Image.open(path).convert("L")) != first).any(axis=0)
    middle = len(changed) // 2
    assert changed[middle:].any()
    assert not changed[: middle - 10].any()


def test_diagram_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    figures = fit_out_of_fold(*draw_rows(100))
    with pytest.raises(InputError, match="choose a folder"):
        draw_reliability(tmp_path / "file" / "reliability.png", figures["before"], figures["after"])


# Abstaining


def best_by_brute_force(probabilities, labels, wanted):
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for threshold in sorted({0.0, *confidence}):
        answered = confidence >= threshold
        if answered.sum() >= MIN_ANSWERED and correct[answered].mean() >= wanted:
            return threshold, answered.mean(), correct[answered].mean()
    return None


@pytest.mark.parametrize("wanted", [0.3, 0.75, 0.85, 0.9])
def test_threshold_is_the_smallest_that_reaches_the_wanted_accuracy(wanted):
    probabilities, labels, _ = draw_rows(250)
    probabilities = probabilities.round(2)  # many rows of equal confidence
    found = abstain_threshold(probabilities, labels, wanted)
    assert (found.threshold, found.coverage, found.accuracy) == best_by_brute_force(probabilities, labels, wanted)
    assert found.num_answered == found.coverage * found.num_rows == found.coverage * 250
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert json.loads(json.dumps(found.to_dict()))["threshold"] == found.threshold


def test_more_accuracy_is_bought_with_coverage():
    probabilities, labels, _ = draw_rows()
    found = [abstain_threshold(probabilities, labels, wanted) for wanted in (0.5, 0.8, 0.85, 0.9, 0.95)]
    assert found[0].threshold == 0
    assert found[0].coverage == 1
    for easier, harder in itertools.pairwise(found):
        assert harder.threshold > easier.threshold
        assert harder.coverage < easier.coverage


def test_interval_is_that_of_wilson():
    found = abstain_threshold(*with_confidence([0.9] * 40, [1] * 30 + [0] * 10), 0.5)
    z, n, p = 1.959964, 40, 0.75
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found.interval == pytest.approx(((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))


def test_rows_of_equal_confidence_are_answered_together():
    # The first 24 of 30 are right: a cut between equal rows would reach any accuracy.
    rows = with_confidence([0.8] * 30, [1] * 24 + [0] * 6)
    assert abstain_threshold(*rows, 0.8).num_answered == 30
    with pytest.raises(InputError, match=r"the best is 0\.8000, with 30 of 30 rows \(100\.0%\)"):
        abstain_threshold(*rows, 0.81)


def test_few_lucky_rows_are_no_threshold():
    rows = with_confidence([0.9] * (MIN_ANSWERED - 1) + [0.6] * 81, [1] * (MIN_ANSWERED - 1) + [0] * 81)
    with pytest.raises(InputError, match=r"the best is 0\.1900, with 100 of 100 rows"):
        abstain_threshold(*rows, 0.9)


def test_accuracy_out_of_reach_names_one_that_is_reached():
    probabilities, labels, _ = draw_rows(2000, temperature=3)
    labels[::5] = (probabilities[::5].argmax(axis=1) + 1) % 3  # wrong at any confidence
    with pytest.raises(InputError, match=r"No threshold .* accuracy of 0\.99 on") as caught:
        abstain_threshold(probabilities, labels, 0.99)
    reachable = float(str(caught.value).rpartition("Ask for ")[2].split()[0])
    assert abstain_threshold(probabilities, labels, reachable).accuracy >= reachable > 0.8
    with pytest.raises(InputError):
        abstain_threshold(probabilities, labels, reachable + 0.001)


@pytest.mark.parametrize(
    ("num_rows", "wanted", "message"),
    [
        (19, 0.5, "Got 19 labelled rows"),
        (50, 0, "above 0 and at most 1"),
        (50, 90, "above 0 and at most 1"),
        (50, float("nan"), "above 0 and at most 1"),
    ],
)
def test_impossible_wishes_are_refused(num_rows, wanted, message):
    probabilities, labels, _ = draw_rows(num_rows)
    with pytest.raises(InputError, match=message):
        abstain_threshold(probabilities, labels, wanted)


def test_own_labels_dont_choose_a_folds_threshold():
    probabilities, labels, folds = draw_rows(1000, temperature=2)
    found = abstain_out_of_fold(probabilities, labels, folds, 0.85)
    shuffled = labels.copy()
    shuffled[folds == 2] = np.random.default_rng(3).permutation(labels[folds == 2])
    other = abstain_out_of_fold(probabilities, shuffled, folds, 0.85)
    thresholds, others = (result["cross_fitted"]["fold_thresholds"] for result in (found, other))
    assert [fold for fold in thresholds if thresholds[fold] == others[fold]] == ["2"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_cross_fitted_figures_count_each_fold_by_the_others():
    probabilities, labels, folds = draw_rows(1000, temperature=2)
    probabilities = probabilities.round(1)  # rows of the fold are at the very threshold
    found = abstain_out_of_fold(probabilities, labels, folds, 0.85)
    right = answered = 0
    for fold in range(5):
        own = folds == fold
        temperature = fit_temperature(probabilities[~own], labels[~own])
        scaled = apply_temperature(probabilities, temperature)
        threshold = abstain_threshold(scaled[~own], labels[~own], 0.85).threshold
        rows = own & (scaled.max(axis=1) >= threshold)
        right, answered = right + (scaled[rows].argmax(axis=1) == labels[rows]).sum(), answered + rows.sum()
        assert found["cross_fitted"]["fold_thresholds"][str(fold)] == threshold
    assert found["cross_fitted"]["num_answered"] == answered
    assert found["cross_fitted"]["accuracy"] == right / answered
    chosen = abstain_threshold(apply_temperature(probabilities, found["temperature"]), labels, 0.85)
    assert found["chosen"] == chosen.to_dict()


def test_cross_fitting_shows_that_a_lucky_threshold_was_luck():
    """Confidence says nothing here and half of the answers are right, whatever is chosen."""
    num_found = num_warned = right = answered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = with_confidence(rng.uniform(0.5, 1, 200), rng.random(200) < 0.5)
        try:
            found = abstain_out_of_fold(*rows, np.arange(200) % 5, 0.55)
        except InputError:
            continue
        cross_fitted = found["cross_fitted"]
        assert found["chosen"]["accuracy"] >= 0.55
        right += (cross_fitted["accuracy"] or 0) * cross_fitted["num_answered"]
        answered += cross_fitted["num_answered"]
        num_found += 1
        num_warned += any("under the wanted 0.55" in remark for remark in found["remarks"])
    assert num_found > 20
    # A little above 0.5, since the draws in which nothing reaches 0.55 are not counted.
    assert right / answered == pytest.approx(0.5, abs=0.03)
    assert num_warned > num_found / 2


def test_fold_that_the_others_say_nothing_for_answers_nothing():
    # Fold 0 alone is right when sure, so that without it nothing reaches 0.9.
    confidence = np.tile([0.95, 0.6], 50)
    folds = np.repeat([0, 1], 50)
    correct = np.where(folds == 0, 1, np.arange(100) % 4 == 0)
    found = abstain_out_of_fold(*with_confidence(confidence, correct), folds, 0.7)
    assert found["cross_fitted"]["fold_thresholds"]["0"] is None
    assert found["cross_fitted"]["num_answered"] == 50  # fold 1, by the threshold of fold 0
    assert found["remarks"][0].startswith("For 1 of 2 folds the other folds do not reach an accuracy of 0.7")


def test_no_row_answered_has_no_accuracy():
    correct = np.tile([1] * 13 + [0] * 2, 2)
    found = abstain_out_of_fold(*with_confidence([0.8] * 30, correct), np.repeat([0, 1], 15), 0.8)
    assert found["chosen"]["coverage"] == 1
    cross_fitted = found["cross_fitted"]
    assert (cross_fitted["num_answered"], cross_fitted["accuracy"], cross_fitted["interval"]) == (0, None, None)
    assert cross_fitted["fold_thresholds"] == {"0": None, "1": None}
    text = format_abstention(found)
    assert "to expect" not in text
    assert text.endswith(found["remarks"][0])


def test_text_says_what_to_expect_of_rows_that_chose_nothing():
    found = abstain_out_of_fold(*draw_rows(1000, temperature=2), 0.85)
    text, expected = format_abstention(found), found["cross_fitted"]
    assert f"confidence is at least {found['chosen']['threshold']:.6f}" in text
    assert f"scaling by the temperature {found['temperature']:.4f}" in text
    assert f"{expected['coverage']:.1%} of them answered, accuracy {expected['accuracy']:.3f} [" in text
