"""Thresholds against brute force, and what may be expected of rows that chose nothing."""

import json

import numpy as np
import pytest
from scores.drawn_answers import draw_rows, with_confidence

from evaluation.scores.abstention import MIN_ANSWERED, abstain_out_of_fold, abstain_threshold, format_abstention
from evaluation.scores.calibration import apply_temperature, fit_temperature
from modeling.errors import InputError


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
    expected = best_by_brute_force(probabilities, labels, wanted)
    assert (found["threshold"], found["coverage"], found["accuracy"]) == expected
    assert found["num_answered"] == found["coverage"] * found["num_rows"] == found["coverage"] * 250
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]


def test_interval_is_that_of_wilson():
    found = abstain_threshold(*with_confidence([0.9] * 40, [1] * 30 + [0] * 10), 0.5)
    z, n, p = 1.959964, 40, 0.75
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert found["interval"] == pytest.approx(ends)


def test_rows_of_equal_confidence_are_answered_together():
    # The first 24 of 30 are right: a cut between equal rows would reach any accuracy.
    rows = with_confidence([0.8] * 30, [1] * 24 + [0] * 6)
    assert abstain_threshold(*rows, 0.8)["num_answered"] == 30
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
    assert abstain_threshold(probabilities, labels, reachable)["accuracy"] >= reachable > 0.8
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
        threshold = abstain_threshold(scaled[~own], labels[~own], 0.85)["threshold"]
        rows = own & (scaled.max(axis=1) >= threshold)
        right, answered = right + (scaled[rows].argmax(axis=1) == labels[rows]).sum(), answered + rows.sum()
        assert found["cross_fitted"]["fold_thresholds"][str(fold)] == threshold
    assert found["cross_fitted"]["num_answered"] == answered
    assert found["cross_fitted"]["accuracy"] == right / answered
    scaled = apply_temperature(probabilities, found["temperature"])
    assert found["chosen"] == abstain_threshold(scaled, labels, 0.85)


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
