"""When to give no answer: the confidence from which on answers are as often right as wanted.

Legend: N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from data_utils.console.tables import format_interval
from data_utils.system.schema import read_json
from evaluation.scores.calibration import apply_temperature, fit_temperature, list_folds
from evaluation.scores.metrics import Floats, bin_rows, take_labelled
from modeling.errors import InputError
from run_files.run_folder import RunFolder
from run_files.schema import AbstentionFile

MIN_ANSWERED = 20  # the accuracy of fewer rows is mostly chance

Bools = NDArray[np.bool_]


def abstain_threshold(probabilities: ArrayLike, labels: ArrayLike, wanted_accuracy: float) -> dict[str, Any]:
    """The smallest confidence from which on the answered rows have the wanted accuracy, in (0, 1].

    Chosen and measured on the same rows, the accuracy is flattered; `abstain_out_of_fold` says what to expect.

    Returns:
        Ready for JSON: threshold (0 answers every row), num_rows, num_answered, coverage, accuracy among the answered,
        and its interval (95 %, Wilson 1927), which doesn't know that the threshold was chosen on these rows.

    Raises:
        InputError: no threshold that answers at least 20 rows reaches it; the best one is named.
    """
    if not 0 < wanted_accuracy <= 1:
        raise InputError(f"Got a wanted accuracy of {wanted_accuracy}; it must be above 0 and at most 1.")
    values, known, _ = take_labelled(probabilities, labels)
    confidence, correct, _ = bin_rows(values, known)
    threshold = _choose_threshold(confidence, correct, wanted_accuracy)
    return {"threshold": threshold, **_count(correct[confidence >= threshold], num_rows=len(correct))}


def abstain_out_of_fold(
    probabilities: ArrayLike, labels: ArrayLike, folds: ArrayLike, wanted_accuracy: float
) -> dict[str, Any]:
    """The threshold of all rows, and what such a threshold does to rows that it was not chosen on.

    Confidence is that after temperature scaling, fitted on the rows that the threshold is chosen on: all of them for
    `chosen`, the other folds for `cross_fitted`; the arguments are those of `fit_out_of_fold`.

    Returns:
        Ready for JSON: wanted_accuracy; temperature (of all rows); chosen (of `abstain_threshold`, flattered);
        cross_fitted {num_rows, num_answered, coverage, accuracy, interval, fold_thresholds}; remarks. A fold whose
        others don't reach the wanted accuracy has the threshold None and answers nothing; accuracy and interval are
        None if no row is answered.
    """
    values, known, (numbers,) = take_labelled(probabilities, labels, folds)
    fold_numbers, temperature = list_folds(numbers), fit_temperature(values, known)
    chosen = abstain_threshold(apply_temperature(values, temperature), known, wanted_accuracy)
    answers: list[Bools] = []
    thresholds: dict[str, float | None] = dict.fromkeys(map(str, fold_numbers))
    for fold in fold_numbers:
        own = numbers == fold
        scaled = apply_temperature(values, fit_temperature(values[~own], known[~own]))
        confidence, correct, _ = bin_rows(scaled, known)
        with suppress(InputError):
            thresholds[str(fold)] = _choose_threshold(confidence[~own], correct[~own], wanted_accuracy)
        threshold = thresholds[str(fold)]
        answers.append(correct[own][confidence[own] >= (math.inf if threshold is None else threshold)])
    cross_fitted = _count(np.concatenate(answers), num_rows=len(known))
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
    return {
        "wanted_accuracy": wanted_accuracy,
        "temperature": temperature,
        "chosen": chosen,
        "cross_fitted": cross_fitted | {"fold_thresholds": thresholds},
        "remarks": remarks,
    }


def judge_confidence(probabilities: ArrayLike, found: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """By what `abstain_out_of_fold` found: the confidence of N rows, (N,), and whether each is answered, (N,) bool."""
    confidence = apply_temperature(probabilities, found["temperature"]).max(axis=1)
    return {"confidence": confidence, "answered": confidence >= found["chosen"]["threshold"]}


def read_abstention(folder: RunFolder) -> dict[str, Any] | None:
    """What `evaluate.py RUN --abstain` learned; None where it was not asked for."""
    return read_json(folder.abstention_file, AbstentionFile) if folder.abstention_file.is_file() else None


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


def _choose_threshold(confidence: Floats, correct: Bools, wanted_accuracy: float) -> float:
    """The smallest threshold that answers enough rows well enough; 0 if that is all of them."""
    if len(correct) < MIN_ANSWERED:
        raise InputError(f"Got {len(correct)} labelled rows to choose a threshold on; {MIN_ANSWERED} are needed.")
    thresholds, kinds = np.unique(confidence, return_inverse=True)  # equal confidence: answered together or not at all
    answered = np.bincount(kinds)[::-1].cumsum()[::-1]
    right = np.bincount(kinds, weights=correct)[::-1].cumsum()[::-1]
    enough = answered >= MIN_ANSWERED
    thresholds, answered, accuracy = thresholds[enough], answered[enough], right[enough] / answered[enough]
    reached = np.flatnonzero(accuracy >= wanted_accuracy)
    if len(reached):
        return float(thresholds[reached[0]]) if reached[0] else 0.0
    best = accuracy.argmax()  # the first of the best, which answers the most
    raise InputError(
        f"No threshold of confidence gives an accuracy of {wanted_accuracy} on at least {MIN_ANSWERED} rows: the best "
        f"is {accuracy[best]:.4f}, with {answered[best]} of {len(correct)} rows ({answered[best] / len(correct):.1%}) "
        f"answered. Ask for {math.floor(accuracy[best] * 1000) / 1000} or less."
    )


def _count(correct: Bools, *, num_rows: int) -> dict[str, Any]:
    """Of the answered rows' being right: how many, and how often, with Wilson's interval."""
    num_answered, num_right = len(correct), int(correct.sum())
    figures = {"num_rows": num_rows, "num_answered": num_answered, "coverage": num_answered / num_rows}
    if not num_answered:
        return figures | {"accuracy": None, "interval": None}
    interval = binomtest(num_right, num_answered).proportion_ci(0.95, method="wilson")
    return figures | {"accuracy": num_right / num_answered, "interval": [float(interval.low), float(interval.high)]}
