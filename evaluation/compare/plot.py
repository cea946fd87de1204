"""The picture of a comparison."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_utils.console.screen import printable
from evaluation.compare.runs import ComparedRun
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches
HEIGHT_PER_RUN = 0.45  # inches
LABEL_LENGTH, MAX_NAME = 32, 120  # characters in a line, and of a name
SEED_OFFSET = 0.18  # below the line of the run, as a share of the step to the next one
RUN_COLOUR, MAJORITY_COLOUR = "#1f5a99", "#b3541e"


def draw_comparison(runs: Sequence[ComparedRun], majority: Mapping[str, Any]) -> Figure:
    """Accuracy and macro F1, each with a line per run, the first on top: a dot with its 95 % interval, pale dots for
    its seeds, a line for the majority class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not needed without a picture
    from matplotlib.figure import Figure

    labels = [textwrap.fill(printable(run.name, MAX_NAME), LABEL_LENGTH) for run in runs]
    num_lines = sum(max(1, 0.5 * (1 + label.count("\n"))) for label in labels)
    figure = Figure(figsize=(WIDTH, 1.6 + HEIGHT_PER_RUN * num_lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(INTERVAL_SCORES), sharey=True)
    for panel, name in zip(panels, INTERVAL_SCORES, strict=True):
        _draw_panel(panel, runs, name, majority[name])
    # A name is no formula, whatever dollars are in it.
    panels[0].set_yticks(range(len(runs)), labels, parse_math=False)
    panels[0].set_ylim(len(runs) - 0.5, -0.5)
    handles, names = panels[0].get_legend_handles_labels()
    names[names.index("majority")] = f"always {printable(majority['label'], MAX_NAME)}"
    legend = figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_panel(panel: Axes, runs: Sequence[ComparedRun], name: str, always: float) -> None:
    means = [run.scores.mean[name] for run in runs]
    # The mean of what the bootstrap draws can lie beside the value itself, and so can, in few rows, its whole interval.
    low, high = zip(*(run.scores.intervals[name] for run in runs), strict=True)
    sides = [[max(mean - end, 0) for mean, end in zip(means, low, strict=True)]]
    sides.append([max(end - mean, 0) for mean, end in zip(means, high, strict=True)])
    panel.axvline(always, color=MAJORITY_COLOUR, linestyle="--", linewidth=1.2, label="majority")
    seeds = [
        (value, place + SEED_OFFSET)
        for place, run in enumerate(runs)
        for value in (run.scores.values[name] if run.seeds else ())
    ]
    if seeds:
        panel.scatter(*zip(*seeds, strict=True), s=14, color=RUN_COLOUR, alpha=0.35, linewidths=0, label="one seed")
    style = {"color": RUN_COLOUR, "ecolor": RUN_COLOUR, "markersize": 6, "capsize": 3, "elinewidth": 1.4}
    panel.errorbar(means, range(len(runs)), xerr=sides, fmt="o", label="run, 95 % interval", **style)
    panel.set_xlabel(SCORES[name])
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
