"""The table, the files and the picture of `evaluation.robustness.robustness.summarise_robustness`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_utils.console.tables import format_interval, format_markdown, format_table
from data_utils.system.files import write_csv, write_text
from evaluation.robustness.robustness import CLEAN, FAMILIES
from run_files.output import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ece": "ECE"}
_NOTES = (
    "Pictures were corrupted as the model gets them, decoded and resized; texts after the cleaning. A share is the "
    "chance of each row, or of each word. All levels of one kind share one draw per row."
)


def format_robustness(summary: dict[str, Any], *, title: str) -> str:
    """The table of all conditions and the remarks as plain text."""
    heading = f"robustness on {title}: {summary['num_rows']} rows, 95 % intervals in brackets"
    return "\n".join([heading, "", format_table(_tabulate(summary)), "", *summary["remarks"]]).rstrip()


def write_robustness(folder: Path, split: str, summary: dict[str, Any]) -> Path:
    """Write robustness.csv, .md and .png, of another part than val as robustness_{split}.csv and so on.

    Returns:
        The path of the JSON that belongs to them.
    """
    path = folder / ("robustness.json" if split == "val" else f"robustness_{split}.json")
    write_csv(path.with_suffix(".csv"), _list_figures(summary))
    intro = f"{summary['num_rows']} rows ({split}); 95 % intervals in brackets (bootstrap over rows). {_NOTES}"
    picture = f"![Accuracy, macro-F1 and ECE by condition]({path.with_suffix('.png').name})"
    table = format_markdown(_tabulate(summary))
    lines = ["# Robustness", "", intro, "", table, "", *summary["remarks"], "", picture, ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    write_figure(path.with_suffix(".png"), draw_robustness(summary))
    return path


def draw_robustness(summary: dict[str, Any]) -> Figure:
    """A panel per kind of corruption: accuracy and macro-F1 with their intervals, and ECE, against the level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(2, -(-(len(FAMILIES) + 1) // 2), sharey=True).flat)
    for family, axes in zip(FAMILIES, panels, strict=False):
        _draw_family(axes, family, summary)
    legend = panels[len(FAMILIES)]
    legend.axis("off")
    legend.legend(*panels[0].get_legend_handles_labels(), loc="center", title="bands: 95 % intervals")
    panels[0].set_ylim(-0.02, 1.02)
    return figure


def _draw_family(axes: Axes, family: str, summary: dict[str, Any]) -> None:
    conditions = summary["conditions"]
    levels = [metrics["level"] for metrics in conditions.values() if metrics["family"] == family]
    points = [conditions[CLEAN.name], *(each for each in conditions.values() if each["family"] == family)]
    x = [FAMILIES[family].clean_level, *levels]
    for name, label in _FIGURES.items():
        (line,) = axes.plot(x, [point[name] for point in points], marker="o", markersize=4, label=label)
        if f"{name}_interval" in points[0]:
            low, high = zip(*(point[f"{name}_interval"] for point in points), strict=True)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    majority = summary["majority_baseline"]["accuracy"]
    axes.axhline(majority, color="grey", linestyle="--", linewidth=1, label="accuracy of the majority class")
    axes.set_xticks(x, ["clean", *(f"{level:g}" for level in levels)], fontsize="small")
    if x[0] > x[-1]:
        axes.invert_xaxis()
    axes.set_title(FAMILIES[family].title, fontsize="medium")
    axes.grid(alpha=0.3)


def _tabulate(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["condition", "accuracy", "macro-F1", "ECE"]]
    for name, metrics in summary["conditions"].items():
        accuracy = format_interval(metrics["accuracy"], metrics["accuracy_interval"])
        macro_f1 = format_interval(metrics["macro_f1"], metrics["macro_f1_interval"])
        rows.append([name, accuracy, macro_f1, f"{metrics['ece']:.3f}"])
    baseline = summary["majority_baseline"]
    return [*rows, [f"always {baseline['label']}", f"{baseline['accuracy']:.3f}", "", ""]]


def _list_figures(summary: dict[str, Any]) -> list[Sequence[Any]]:
    intervals = [f"{name}{part}" for name in ("accuracy", "macro_f1") for part in ("", "_low", "_high")]
    rows = [["condition", "family", "level", "num_rows", *intervals, "ece"]]
    for name, metrics in summary["conditions"].items():
        figures = ((metrics[key], *metrics[f"{key}_interval"]) for key in ("accuracy", "macro_f1"))
        origin = (name, metrics["family"], metrics["level"], metrics["num_rows"])
        rows.append([*origin, *chain.from_iterable(figures), metrics["ece"]])
    return rows
