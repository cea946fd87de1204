"""How far reasons can be believed: deletion curves, beside those of random orders.

What matters most by the reasons is hidden first, more and more of it, and the probability of the answer watched
(Petsiuk et al. 2018, "RISE", the deletion metric). The lower the area under it, the more faithful the order. Legend: N
rows, M models, C classes, S steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_utils.console.tables import format_interval, format_table
from evaluation.predict.ensemble import Part
from evaluation.predict.inference import Batch, Outputs
from evaluation.reasons.explaining import ask_rows, lay_out
from evaluation.reasons.hiding import HiddenRow, Hiding
from evaluation.scores.metrics import Floats
from evaluation.scores.resampling import find_intervals, resample
from modeling.ensemble import JointModels
from run_files.explanations import Reasons

STEPS = 10  # a tenth of the words, or of the regions, more at each
SIDES = ("words", "regions")
SCORES = ("area", "below_random")
# By side and by what gave it: the numbers of a row's parts, those to be hidden first before others.
Orders = Mapping[tuple[str, str], Sequence[int]]


class HideInOrder:
    """A step, of one row per batch: probabilities (1, M, S C) for each order, as ever more of the row is hidden."""

    def __init__(self, hiding: Hiding, texts: Sequence[str], orders: Sequence[Orders]) -> None:
        self._hiding, self._texts, self._orders = hiding, texts, orders

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        number = int(batch["row_index"][0])
        row, found = HiddenRow(models, batch, self._texts[number], self._hiding), {}
        ask = {"words": row.without_words, "regions": row.without_regions}
        for (side, method), order in self._orders[number].items():
            # Of a row without that side there is nothing to hide; it is left out of the figures.
            hidden = [order[: round(len(order) * step / STEPS)] for step in range(1, STEPS + 1) if len(order)]
            found[f"{side} {method}"] = lay_out(ask[side](hidden), STEPS)
        return found


def order_parts(reasons: Reasons, methods: Mapping[str, Reasons]) -> Orders:
    """The orders of one row's words and regions by the reasons of some methods, and by chance."""
    rng = np.random.default_rng(zlib.crc32(reasons.guid.encode("utf-8", "surrogatepass")))
    orders: dict[tuple[str, str], Sequence[int]] = {}
    for side in SIDES:
        for method, each in methods.items():
            orders[side, method] = np.argsort(-list_effects(each, side), kind="stable").tolist()
        orders[side, "random"] = rng.permutation(len(list_effects(reasons, side))).tolist()
    return orders


def list_effects(reasons: Reasons, side: str) -> Floats:
    """The effects of a row's words, or of its regions in the order of their numbers."""
    found = [word.effect for word in reasons.words] if side == "words" else reasons.regions or ()
    return np.array(found, dtype=np.float64).reshape(-1)


def measure_faithfulness(
    parts: Sequence[Part], methods: Mapping[str, Sequence[Reasons]], **options: Any
) -> dict[str, Any]:
    """Deletion curves over the rows that are explained, of words and of regions; see `summarise_curves`.

    Args:
        parts: models and rows, as for `explain_rows`.
        methods: reasons for the same rows, by what gave them.
        options: as for `explain_rows`.
    """
    rows = next(iter(methods.values()))
    of_rows = [dict(zip(methods, each, strict=True)) for each in zip(*methods.values(), strict=True)]
    orders = {each.guid: order_parts(each, of) for each, of in zip(rows, of_rows, strict=True)}

    def make_step(hiding: Hiding, texts: Sequence[str], guids: Sequence[str]) -> HideInOrder:
        return HideInOrder(hiding, texts, [orders[guid] for guid in guids])

    said, names = ask_rows(parts, [*orders], make_step, **options), parts[0][0].label_names
    found: dict[str, Any] = {}
    for side in SIDES:
        kept = [(row, values) for row, values in zip(rows, said, strict=True) if len(list_effects(row, side)) > 1]
        if kept:
            found[side] = summarise_curves(
                {
                    method: np.array(
                        [
                            [row.probability, *values[f"{side} {method}"].reshape(STEPS, -1)[:, names.index(row.label)]]
                            for row, values in kept
                        ]
                    )
                    for method in (*methods, "random")
                }
            )
    return found


def summarise_curves(curves: Mapping[str, Floats]) -> dict[str, Any]:
    """Means of (N, S + 1) curves, one of them "random", with 95 % intervals over the rows.

    Returns:
        num_rows, and for each method: curve, the mean at each share hidden from 0 to 1; area and area_interval, under
        it; below_random and below_random_interval, how much less that is than random's.
    """
    areas = {method: ((values[:, 1:] + values[:, :-1]) / 2).mean(axis=1) for method, values in curves.items()}
    num_rows, found = len(areas["random"]), {}
    for method, values in areas.items():
        kinds = dict(zip(SCORES, (values, areas["random"] - values), strict=True))
        intervals = find_intervals(resample(_mean_of(kinds), num_rows))
        found[method] = {"curve": curves[method].mean(axis=0).tolist()}
        for name, each in kinds.items():
            found[method] |= {name: float(each.mean()), f"{name}_interval": intervals[name]}
    return {"num_rows": num_rows, **found}


def _mean_of(columns: Mapping[str, Floats]) -> Callable[[Floats], dict[str, Floats]]:
    return lambda weights: {name: weights @ values / weights.sum(axis=1) for name, values in columns.items()}


def format_faithfulness(found: Mapping[str, Any]) -> str:
    """The table of `measure_faithfulness`."""
    table = [["hidden", "order", "rows", "area under the curve", "below random"]]
    for side, figures in found.items():
        for method, each in figures.items():
            if method != "num_rows":
                cells = [format_interval(each.get(name), each.get(f"{name}_interval")) for name in SCORES]
                table.append([side, method, str(figures["num_rows"]), *cells])
    return format_table(table)
