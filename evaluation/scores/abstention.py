"""When to give no answer: the confidence from which on answers are as often right as wanted.

Legend: N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from data_utils.console.tables import format_interval
from evaluation.scores.calibration import (
    Floats,
    apply_temperature,
    check_rows,
    fit_temperature,
    list_folds,
)
from modeling.errors import InputError

MIN_ANSWERED = 20  # the accuracy of fewer rows is mostly chance

Bools = NDArray[np.bool_]


def abstain_threshold(probabilities: ArrayLike, labels: ArrayLike, wanted_accuracy: float) -> dict[str, Any]:
    """The smallest confidence from which on the answered rows have the wanted accuracy.

    Chosen and measured on the same rows, the accuracy is flattered; `abstain_out_of_fold` says what to expect.

    Args:
        probabilities: (N, C) of rows that the model was not trained on.
        labels: (N,) class ids; rows labelled -100 are left out.
        wanted_accuracy: in (0, 1].

    Returns:
        Ready for JSON: threshold (0 answers every row), num_rows, num_answered, coverage, accuracy among the answered,
        and its interval (95 %, Wilson 1927), which doesn't know that the threshold was chosen on these rows.

    Raises:
        InputError: no threshold that answers at least 20 rows reaches it; the best one is named.
    """
    if not 0 < wanted_accuracy <= 1:
        raise InputError(f"Got a wanted accuracy of {wanted_accuracy}; it must be above 0 and at most 1.")
    confidence, correct = _judge(*check_rows(probabilities, labels))
    if len(correct) < MIN_ANSWERED:
        raise InputError(
            f"Got {len(correct)} labelled rows to choose a threshold on; at least {MIN_ANSWERED} are needed."
        )
    threshold = _choose_threshold(confidence, correct, wanted_accuracy)
    if threshold is None:
        raise InputError(_describe_best(confidence, correct, wanted_accuracy))
    return {"threshold": threshold, **_count(correct[confidence >= threshold], num_rows=len(correct))}


def abstain_out_of_fold(
    probabilities: ArrayLike, labels: ArrayLike, folds: ArrayLike, wanted_accuracy: float
) -> dict[str, Any]:
    """The threshold of all rows, and what such a threshold does to rows that it was not chosen on.

    Confidence is that after temperature scaling, fitted on the rows that the threshold is chosen on: all of them for
    `chosen`, the other folds for `cross_fitted`.

    Args:
        probabilities, labels, folds: as in `evaluation.scores.calibration.fit_out_of_fold`.
        wanted_accuracy: in (0, 1].

    Returns:
        Ready for JSON: wanted_accuracy; temperature (of all rows); chosen (of `abstain_threshold`, flattered);
        cross_fitted {num_rows, num_answered, coverage, accuracy, interval, fold_thresholds}; remarks. A fold whose
        others don't reach the wanted accuracy has the threshold None and answers nothing; accuracy and interval are
        None if no row is answered.

    Raises:
        InputError: as `abstain_threshold`; fewer than two folds have labels.
    """
    probabilities, labels, folds = check_rows(probabilities, labels, folds)
    fold_numbers, temperature = list_folds(folds), fit_temperature(probabilities, labels)
    chosen = abstain_threshold(apply_temperature(probabilities, temperature), labels, wanted_accuracy)
    answers, thresholds = [], {}
    for fold in fold_numbers:
        own = folds == fold
        scaled = apply_temperature(probabilities, fit_temperature(probabilities[~own], labels[~own]))
        confidence, correct = _judge(scaled, labels)
        threshold = _choose_threshold(confidence[~own], correct[~own], wanted_accuracy)
        answers.append(correct[own][confidence[own] >= (math.inf if threshold is None else threshold)])
        thresholds[str(fold)] = threshold
    cross_fitted = _count(np.concatenate(answers), num_rows=len(labels))
    return {
        "wanted_accuracy": wanted_accuracy,
        "temperature": temperature,
        "chosen": chosen,
        "cross_fitted": cross_fitted | {"fold_thresholds": thresholds},
        "remarks": _remarks(cross_fitted, thresholds, wanted_accuracy),
    }


def _judge(probabilities: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Bools]:
    """Confidence, which is a row's largest probability, and whether it is the label's: (N,) each."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _choose_threshold(confidence: Floats, correct: Bools, wanted_accuracy: float) -> float | None:
    """The smallest threshold that answers enough rows well enough; 0 if that is all of them, None if there is none."""
    thresholds, _, accuracy = _stable_thresholds(confidence, correct)
    reached = np.flatnonzero(accuracy >= wanted_accuracy)
    if not len(reached):
        return None
    return float(thresholds[reached[0]]) if reached[0] else 0.0


def _stable_thresholds(confidence: Floats, correct: Bools) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Each value of confidence from which on enough rows are answered, rising; the number and accuracy of those."""
    thresholds, kinds = np.unique(confidence, return_inverse=True)  # equal confidence: answered together or not at all
    answered = np.bincount(kinds)[::-1].cumsum()[::-1]
    right = np.bincount(kinds, weights=correct)[::-1].cumsum()[::-1]
    enough = answered >= MIN_ANSWERED
    return thresholds[enough], answered[enough], right[enough] / answered[enough]


def _describe_best(confidence: Floats, correct: Bools, wanted_accuracy: float) -> str:
    _, answered, accuracy = _stable_thresholds(confidence, correct)
    best = accuracy.argmax()  # the first of the best, which answers the most
    share = answered[best] / len(correct)
    return (
        f"No threshold of confidence gives an accuracy of {wanted_accuracy} on at least {MIN_ANSWERED} rows: the best "
        f"is {accuracy[best]:.4f}, with {answered[best]} of {len(correct)} rows ({share:.1%}) answered. Ask for "
        f"{math.floor(accuracy[best] * 1000) / 1000} or less."
    )


def _count(correct: Bools, *, num_rows: int) -> dict[str, Any]:
    """Of the answered rows' being right: how many, and how often, with Wilson's interval."""
    num_answered, num_right = len(correct), int(correct.sum())
    figures = {"num_rows": num_rows, "num_answered": num_answered, "coverage": num_answered / num_rows}
    if not num_answered:
        return figures | {"accuracy": None, "interval": None}
    interval = binomtest(num_right, num_answered).proportion_ci(0.95, method="wilson")
    return figures | {"accuracy": num_right / num_answered, "interval": [float(interval.low), float(interval.high)]}


def _remarks(
    cross_fitted: Mapping[str, Any], thresholds: Mapping[str, float | None], wanted_accuracy: float
) -> list[str]:
    remarks, num_silent = [], list(thresholds.values()).count(None)
    if num_silent:
        remarks.append(
            f"For {num_silent} of {len(thresholds)} folds the other folds do not reach an accuracy of "
            f"{wanted_accuracy}, so that no row is answered there."
        )
    if cross_fitted["accuracy"] is not None and cross_fitted["accuracy"] < wanted_accuracy:
        found = format_interval(cross_fitted["accuracy"], cross_fitted["interval"])
        remarks.append(
            f"On rows that the threshold was not chosen on the accuracy is {found}, under the wanted {wanted_accuracy}."
        )
    return remarks


def format_abstention(found: Mapping[str, Any]) -> str:
    """What `abstain_out_of_fold` found as plain text."""
    chosen, expected = found["chosen"], found["cross_fitted"]
    lines = [
        f"abstaining for an accuracy of {found['wanted_accuracy']:.3f}: answer where the confidence is at least "
        f"{chosen['threshold']:.6f}; it is a row's largest probability after a further scaling by the temperature "
        f"{found['temperature']:.4f}, which was fitted on the same rows as the threshold"
    ]
    if expected["accuracy"] is not None:
        lines.append(
            f"to expect on rows like these (cross-fitted): {expected['coverage']:.1%} of them answered, accuracy "
            f"{format_interval(expected['accuracy'], expected['interval'])}"
        )
    return "\n".join([*lines, *found["remarks"]])
