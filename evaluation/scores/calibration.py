"""Whether a probability means what it says: temperature scaling and reliability diagrams.

All choices are made on rows that were judged by a model that had not seen them. Figures called cross-fitted never use a
row's own label: what is applied to a fold was chosen on the other folds. Legend: N rows, C classes, M bins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from evaluation.scores.metrics import NUM_BINS, Floats, Integers, bin_rows, expected_calibration_error, take_labelled
from modeling.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPERATURE_BOUNDS = (0.05, 20.0)
MIN_PROBABILITY = 1e-8  # the last place of the files of predictions: below it nothing is known
MIN_GAIN = 1e-6  # nats per row


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The T that minimises the log loss of softmax(logits / T) (Guo et al. 2017, section 4.2).

    Log probabilities serve as logits, since they differ from them by a constant per row. The loss is convex in 1 / T,
    so that a bounded search over log T finds the one minimum. Where there is none the answer is a bound: the lower one
    for rows that are all judged right, the upper one for rows judged worse than by chance. Where T changes nothing
    (uniform or sure and right probabilities) it is 1.
    T is above 1 for a model that is too sure.
    """
    values, known, _ = take_labelled(probabilities, labels)

    def loss(temperature: float) -> float:
        return float(_row_losses(values, known, temperature).mean())

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
        probabilities, labels: as of `take_labelled`.
        folds: (N,) the number of each row's fold; twins must share one.
        rows: (N,) which row each judgement is of, where several models judge a row.

    Returns:
        Ready for JSON: temperature (fitted on all rows), fold_temperatures (each fitted on the other folds), num_rows
        (different ones), before and after (each fold scaled by its temperature) {nll: the mean log loss, ece,
        reliability: of `reliability_bins`}, nll_change with its nll_change_interval (95 %, of the mean of the rows'
        paired differences), and remarks.

    Raises:
        InputError: fewer than two folds have labels.
    """
    rows = np.arange(np.size(np.asarray(labels))) if rows is None else rows
    before, known, (numbers, row_ids) = take_labelled(probabilities, labels, folds, rows)
    after, temperatures = np.empty_like(before), {}
    for fold in list_folds(numbers):
        own = numbers == fold
        temperatures[str(fold)] = fit_temperature(before[~own], known[~own])
        after[own] = apply_temperature(before[own], temperatures[str(fold)])
    _, places = np.unique(row_ids, return_inverse=True)  # what several models say of one row is not independent
    losses = _row_losses(after, known) - _row_losses(before, known)
    changes = np.bincount(places, weights=losses) / np.bincount(places)
    margin = 1.959964 * float(changes.std(ddof=1)) / math.sqrt(len(changes))
    change, temperature = float(changes.mean()), fit_temperature(before, known)
    remarks = []
    if temperature in TEMPERATURE_BOUNDS:
        remarks.append(
            f"The temperature ({temperature:g}) is at the end of what is searched: the rows are all judged "
            "right, or by a model that is far too unsure, or worse than by chance."
        )
    if change + margin >= 0:
        remarks.append("The temperature does not clearly lower the log loss of rows that it was not fitted on.")
    return {
        "temperature": temperature,
        "fold_temperatures": temperatures,
        "num_rows": len(changes),
        "before": _describe(before, known),
        "after": _describe(after, known),
        "nll_change": change,
        "nll_change_interval": [change - margin, change + margin],
        "remarks": remarks,
    }


def list_folds(folds: Integers) -> list[int]:
    """The numbers of the folds, rising; `InputError` unless there are two."""
    numbers = np.unique(folds).tolist()
    if len(numbers) < 2:
        raise InputError(f"Got {len(numbers)} folds with labelled rows; to judge one by the others takes 2 or more.")
    return numbers


def reliability_bins(probabilities: Floats, labels: Integers) -> dict[str, list[Any]]:
    """Counts, confidence and accuracy of the M bins of `bin_rows`; the last two are means, None for an empty bin."""
    confidence, correct, bins = bin_rows(probabilities, labels)
    counts, *sums = (np.bincount(bins, values, NUM_BINS).tolist() for values in (None, confidence, correct))
    means = [[total / count if count else None for total, count in zip(each, counts, strict=True)] for each in sums]
    return {"counts": counts, "confidence": means[0], "accuracy": means[1]}


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
