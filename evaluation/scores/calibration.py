"""Whether a probability means what it says: temperature scaling and reliability diagrams.

All choices are made on rows that were judged by a model that had not seen them (validation or out-of-fold rows).
Figures called cross-fitted never use a row's own label: what is applied to a fold was chosen on the other folds. In
cross-validation the models that judged those other folds had this fold for training; one number per fold hardly carries
that over.

Legend: N rows, C classes, M bins of confidence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from data_utils.prepare.columns import NO_LABEL_ID
from evaluation.scores.metrics import NUM_CALIBRATION_BINS, bin_rows, expected_calibration_error
from modeling.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPERATURE_BOUNDS = (0.05, 20.0)
MIN_PROBABILITY = 1e-8  # the last place of the files of predictions: below it nothing is known
MIN_GAIN = 1e-6  # nats per row

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The T that minimises the log loss of softmax(logits / T) (Guo et al. 2017, section 4.2).

    Log probabilities serve as logits, since they differ from them by a constant per row. The loss is convex in 1 / T,
    so that a bounded search over log T finds the one minimum. Where there is none the loss falls towards a bound, which
    is then the answer: the lower one for rows that are all judged right, whatever their labels, the upper one for
    rows judged worse than by chance. Where T changes nothing (uniform or sure and right probabilities) it is 1.

    Args:
        probabilities: (N, C).
        labels: (N,) class ids; rows labelled -100 are left out.

    Returns:
        T in `TEMPERATURE_BOUNDS`; above 1 for a model that is too sure.

    Raises:
        InputError: no row has a label.
        ValueError: shapes or values that can't be probabilities and labels.
    """
    probabilities, labels = check_rows(probabilities, labels)

    def loss(temperature: float) -> float:
        return float(_row_losses(probabilities, labels, temperature).mean())

    low, high = TEMPERATURE_BOUNDS
    bounds = (math.log(low), math.log(high))
    found = minimize_scalar(lambda x: loss(math.exp(x)), bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # The search stops just short of a bound, or anywhere on a plateau of zero loss before it.
    best = min((low, high, math.exp(found.x)), key=loss)
    return best if loss(best) < loss(1.0) - MIN_GAIN else 1.0


def apply_temperature(probabilities: ArrayLike, temperature: float) -> Floats:
    """softmax(log p / T), (N, C) for T > 0; the most probable class stays, and what is under 1e-8 counts as 1e-8."""
    if not temperature > 0:
        raise ValueError(f"Got a temperature of {temperature}; it must be above 0.")
    return softmax(_logarithm(np.asarray(probabilities, dtype=np.float64)) / temperature, axis=1)


def fit_out_of_fold(
    probabilities: ArrayLike, labels: ArrayLike, folds: ArrayLike, *, rows: ArrayLike | None = None
) -> dict[str, Any]:
    """The temperature of all rows, and what such a temperature does to rows that it was not fitted on.

    Args:
        probabilities: (N, C).
        labels: (N,) class ids; rows labelled -100 are left out.
        folds: (N,) the number of each row's fold; rows that belong together (twins) must share one.
        rows: (N,) which row each judgement is of, where several models judge a row; None: each is of its own.

    Returns:
        Ready for JSON: temperature (fitted on all rows), fold_temperatures (each fitted on the other folds), num_rows
        (different ones), before and after (each fold scaled by its temperature) {nll: the mean log loss, ece,
        reliability: of `reliability_bins`}, nll_change with its nll_change_interval (95 %, of the mean of the rows'
        paired differences), and remarks.

    Raises:
        InputError: fewer than two folds have labels.
    """
    rows = np.arange(np.size(labels)) if rows is None else rows
    before, labels, folds, rows = check_rows(probabilities, labels, folds, rows)
    after, temperatures = np.empty_like(before), {}
    for fold in list_folds(folds):
        own = folds == fold
        temperatures[str(fold)] = fit_temperature(before[~own], labels[~own])
        after[own] = apply_temperature(before[own], temperatures[str(fold)])
    _, numbers = np.unique(rows, return_inverse=True)  # what several models say of one row is not independent
    losses = _row_losses(after, labels) - _row_losses(before, labels)
    changes = np.bincount(numbers, weights=losses) / np.bincount(numbers)
    margin = 1.959964 * float(changes.std(ddof=1)) / math.sqrt(len(changes))
    change, temperature = float(changes.mean()), fit_temperature(before, labels)
    return {
        "temperature": temperature,
        "fold_temperatures": temperatures,
        "num_rows": len(changes),
        "before": _describe(before, labels),
        "after": _describe(after, labels),
        "nll_change": change,
        "nll_change_interval": [change - margin, change + margin],
        "remarks": _remarks(temperature, change + margin),
    }


def reliability_bins(
    probabilities: Floats, labels: Integers, *, num_bins: int = NUM_CALIBRATION_BINS
) -> dict[str, list[Any]]:
    """The M bins of `expected_calibration_error`, one by one, ready for JSON.

    Returns:
        counts, confidence and accuracy, M each; the last two are means over a bin's rows, None for an empty bin.
    """
    confidence, correct, bins = bin_rows(probabilities, labels, num_bins)
    counts = np.bincount(bins, minlength=num_bins).tolist()

    def means(values: NDArray[Any]) -> list[float | None]:
        sums = np.bincount(bins, weights=values, minlength=num_bins).tolist()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    return {"counts": counts, "confidence": means(confidence), "accuracy": means(correct)}


def draw_reliability(before: dict[str, Any], after: dict[str, Any]) -> Figure:
    """Two reliability diagrams of `fit_out_of_fold`, before and after, over the number of rows in each bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    titles = ("before", "after temperature scaling, cross-fitted")
    for (top, bottom), figures, title in zip(panels.T, (before, after), titles, strict=True):
        bins = figures["reliability"]
        width = 1 / len(bins["counts"])
        filled = [number for number, count in enumerate(bins["counts"]) if count]
        centres = [(number + 0.5) * width for number in filled]
        accuracy, confidence = ([bins[key][number] for number in filled] for key in ("accuracy", "confidence"))
        top.bar(centres, accuracy, width=width, color="#4c78a8", edgecolor="white", label="accuracy")
        top.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="perfectly calibrated")
        top.plot(confidence, accuracy, "o", color="#f58518", markersize=4, label="mean confidence of the bin")
        top.set(title=f"{title}\nECE {figures['ece']:.3f}, log loss {figures['nll']:.3f}", xlim=(0, 1), ylim=(0, 1))
        bottom.bar(centres, [bins["counts"][number] for number in filled], width=width, color="#9d9da1")
        bottom.set_xlabel("confidence")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("rows")
    panels[0, 0].legend(loc="upper left", fontsize="small")
    return figure


def check_rows(probabilities: ArrayLike, labels: ArrayLike, *others: ArrayLike) -> tuple[NDArray[Any], ...]:
    """Probabilities (N, C), labels (N,) and further columns (N,) as arrays, of the rows that have a label.

    Raises:
        InputError: no row has one.
        ValueError: other shapes, or what can't be probabilities and labels, such as NaN.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels, *others = (np.asarray(column, dtype=np.int64) for column in (labels, *others))
    if probabilities.ndim != 2 or any(column.shape != probabilities.shape[:1] for column in (labels, *others)):
        shapes = ", ".join(str(column.shape) for column in (labels, *others))
        raise ValueError(
            f"Got probabilities of shape {probabilities.shape} and columns of the shapes {shapes}; expected (N, C) and "
            "(N,)."
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("Got probabilities that are not finite or not between 0 and 1.")
    labelled = labels != NO_LABEL_ID
    if not labelled.any():
        raise InputError(f"None of the {len(labels)} rows has a label, so there is nothing to calibrate on.")
    probabilities, labels, *others = (column[labelled] for column in (probabilities, labels, *others))
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"Got labels from {labels.min()} to {labels.max()}; allowed are 0 to {probabilities.shape[1] - 1} and "
            f"{NO_LABEL_ID} for none."
        )
    return probabilities, labels, *others


def list_folds(folds: Integers) -> list[int]:
    """The numbers of the folds (N,), rising; `InputError` unless there are two."""
    numbers = np.unique(folds).tolist()
    if len(numbers) < 2:
        raise InputError(
            f"Got {len(numbers)} folds with labelled rows; at least 2 are needed to judge one by the others."
        )
    return numbers


def _logarithm(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, MIN_PROBABILITY))


def _row_losses(probabilities: Floats, labels: Integers, temperature: float = 1.0) -> Floats:
    """-log of the label's probability, (N,)."""
    return -log_softmax(_logarithm(probabilities) / temperature, axis=1)[np.arange(len(labels)), labels]


def _describe(probabilities: Floats, labels: Integers) -> dict[str, Any]:
    return {
        "nll": float(_row_losses(probabilities, labels).mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "reliability": reliability_bins(probabilities, labels),
    }


def _remarks(temperature: float, highest_change: float) -> list[str]:
    remarks = []
    if temperature in TEMPERATURE_BOUNDS:
        remarks.append(
            f"The temperature ({temperature:g}) is at the end of what is searched: the rows are all judged "
            "right, or by a model that is far too unsure, or worse than by chance."
        )
    if highest_change >= 0:
        remarks.append("The temperature does not clearly lower the log loss of rows that it was not fitted on.")
    return remarks
