"""The picture of a comparison."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_utils.console.screen import printable
from evaluation.compare.models import Majority, ModelFigures
from evaluation.compare.pairs import TITLES
from run_files.report import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches
HEIGHT_PER_RUN = 0.45  # inches
LABEL_LENGTH, MAX_NAME = 32, 120  # characters in a line, and of a name
SEED_OFFSET = 0.18  # below the line of the run, as a share of the step to the next one
RUN_COLOUR, MAJORITY_COLOUR = "#1f5a99", "#b3541e"


def plot_comparison(path: Path, models: Sequence[ModelFigures], majority: Majority) -> None:
    """Write a PNG: a dot with its 95 % interval per run, pale dots for its seeds, a line for the majority class.

    Raises:
        InputError: it can't be written.
    """
    write_figure(path, draw_comparison(models, majority))


def draw_comparison(models: Sequence[ModelFigures], majority: Majority) -> Figure:
    """Two panels, accuracy and macro F1, with a line per run, the first on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not needed without a picture
    from matplotlib.figure import Figure

    labels = [textwrap.fill(printable(model.name, MAX_NAME), LABEL_LENGTH) for model in models]
    num_lines = sum(max(1, 0.5 * (1 + label.count("\n"))) for label in labels)
    figure = Figure(figsize=(WIDTH, 1.6 + HEIGHT_PER_RUN * num_lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(TITLES), sharey=True)
    for panel, (metric, title) in zip(panels, TITLES.items(), strict=True):
        _draw_panel(panel, models, metric, getattr(majority, metric))
        panel.set_xlabel(title)
    # A name is no formula, whatever dollars are in it.
    panels[0].set_yticks(range(len(models)), labels, parse_math=False)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    handles, names = panels[0].get_legend_handles_labels()
    names[names.index("majority")] = f"always {printable(majority.label, MAX_NAME)}"
    legend = figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_panel(panel: Axes, models: Sequence[ModelFigures], metric: str, always: float) -> None:
    places = range(len(models))
    means = [model.mean(metric) for model in models]
    ends = [model.intervals[metric] for model in models]
    # The mean of what the bootstrap draws can lie beside the value itself, and so can, in few rows, its whole interval.
    sides = [[max(mean - low, 0) for mean, (low, _) in zip(means, ends, strict=True)]]
    sides.append([max(high - mean, 0) for mean, (_, high) in zip(means, ends, strict=True)])
    panel.axvline(always, color=MAJORITY_COLOUR, linestyle="--", linewidth=1.2, label="majority")
    seeds = [
        (value, place + SEED_OFFSET)
        for place, model in enumerate(models)
        for value in model.values[metric]
        if model.seeds
    ]
    if seeds:
        panel.scatter(*zip(*seeds, strict=True), s=14, color=RUN_COLOUR, alpha=0.35, linewidths=0, label="one seed")
    style = {"color": RUN_COLOUR, "ecolor": RUN_COLOUR, "markersize": 6, "capsize": 3, "elinewidth": 1.4}
    panel.errorbar(means, places, xerr=sides, fmt="o", label="run, 95 % interval", **style)
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
