"""`python evaluate.py compare RUN RUN...`: which of several runs is better, as text for the screen and as files."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_utils.console.screen import printable, show
from data_utils.console.tables import format_markdown, format_table
from data_utils.page.render import write_tables
from data_utils.system.files import write_text
from evaluation.arguments import ComparisonArguments
from evaluation.compare.comparison import TESTS, Comparison, PairResult, compare_runs, format_p, format_points
from evaluation.compare.runs import ComparedRun
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES
from run_files.output import write_figure, write_json, write_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAJORITY_SCORES = ("accuracy", "macro_f1", "weighted_f1")
LABEL_LENGTH, MAX_NAME = 32, 120  # characters in a line of the picture, and of a name
RUN_COLOUR, MAJORITY_COLOUR = "#1f5a99", "#b3541e"


def run_compare(arguments: ComparisonArguments) -> None:
    """Compare, print and, with --output, write; one rank does it all, as nothing is computed on a device."""
    if os.environ.get("RANK", "0") != "0":
        return
    comparison = compare_runs(arguments.runs, common_rows=arguments.common_rows)
    show(format_comparison(comparison))
    if arguments.output is not None:
        write_comparison(Path(arguments.output), comparison)
        show(f"\nSaved in {arguments.output}.")


def format_comparison(comparison: Comparison) -> str:
    """For the screen."""
    lines = [_title(comparison), "", format_table(_list_runs(comparison)), "", *comparison.sentences, ""]
    return "\n".join([*lines, *comparison.remarks])


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write comparison.md, .csv (runs), .json and .png, pairs.csv and report.html; `InputError` where that can't be."""
    parts = [
        f"# {_title(comparison)}",
        format_markdown(_list_runs(comparison)),
        "![Accuracy and macro-F1 of each run](comparison.png)",
        "## Pairs",
        "\n".join(f"- {sentence}" for sentence in comparison.sentences),
        format_markdown(_list_pairs(comparison.pairs)),
        "## To be known",
        "\n".join(f"- {remark}" for remark in comparison.remarks),
    ]
    write_text(folder / "comparison.md", "\n\n".join(parts) + "\n")
    tables = {"Runs": _list_runs(comparison), "Pairs": _list_pairs(comparison.pairs)}
    told = {"sentences": comparison.sentences, "remarks": comparison.remarks}
    write_tables(folder / "report.html", _title(comparison), "Comparison of runs", tables, **told)
    write_table(folder / "comparison.csv", _runs_as_rows(comparison))
    write_table(folder / "pairs.csv", _pairs_as_rows(comparison.pairs))
    models = [
        {"name": run.name, "path": run.path, "kind": run.kind, "seeds": list(run.seeds)}
        | {"values": run.scores.values, "intervals": run.scores.intervals, "seeds_averaged": run.averaged}
        | {"cost": run.cost, "mean": run.scores.mean, "std": run.scores.std}
        for run in comparison.runs
    ]
    pairs = [asdict(pair) | {"sentences": {name: pair.sentence(name) for name in TESTS}} for pair in comparison.pairs]
    content = {"num_rows": comparison.num_rows, "label_names": comparison.runs[0].table.label_names, "models": models}
    content |= {"majority": comparison.majority, "pairs": pairs, "remarks": comparison.remarks}
    write_json(folder / "comparison.json", content)
    write_figure(folder / "comparison.png", draw_comparison(comparison.runs, comparison.majority))


def _title(comparison: Comparison) -> str:
    return f"{len(comparison.runs)} runs on the same {comparison.num_rows:,} rows, 95 % intervals in brackets"


def _list_runs(comparison: Comparison) -> list[list[str]]:
    """The runs as rows of text, header first, majority class last, without columns that none fills."""
    titles = list(SCORES.values())
    header = ["run", "seeds", *titles, f"seeds averaged: {titles[0]}", *titles[1:], "parameters", "trainable", "time"]
    rows = []
    for run in comparison.runs:
        averaged = [f"{run.averaged[name]:.3f}" if run.averaged else "" for name in SCORES]
        counts = [run.cost["total"], run.cost["trainable"]]
        sizes = ["" if count is None else f"{count / 1e6:.2f} M" for count in counts]
        scores = map(run.scores.format, SCORES)
        seeds, time = str(len(run.seeds) or ""), _format_seconds(run.cost["seconds"])
        rows.append([run.name, seeds, *scores, *averaged, *sizes, time])
    always = [f"{comparison.majority[name]:.3f}" for name in MAJORITY_SCORES]
    rows.append([f"always {comparison.majority['label']}", "", *always, *[""] * (len(header) - 5)])
    filled = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return [[row[column] for column in filled] for row in (header, *rows)]


def _format_seconds(seconds: float | None) -> str:
    """12 s, 3.4 min, 5.6 h"""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _list_pairs(pairs: Sequence[PairResult]) -> list[list[str]]:
    """The pairs as rows of text, the header first."""
    corrected = ["p (Holm)"] if len(pairs) > 1 else []
    columns = [title for name in TESTS for title in (f"{SCORES[name]}, points", "p", *corrected)]
    rows = [["first - second", "only first right", "only second right", *columns]]
    for pair in pairs:
        row = [f"{pair.first} - {pair.second}", f"{pair.only_first:,}", f"{pair.only_second:,}"]
        for name, difference in pair.differences.items():
            p_values = [difference.p_value, pair.adjusted[name]][: 1 + len(corrected)]
            row += [format_points(difference, unit=""), *(format_p(each, symbol="") for each in p_values)]
        rows.append(row)
    return rows


def _runs_as_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The runs for a CSV, majority class last."""
    rows: list[dict[str, Any]] = [
        {
            **{"run": run.name, "path": run.path, "kind": run.kind, "seeds": " ".join(run.seeds)},
            **{"rows": comparison.num_rows, **run.scores.spreads(), **run.scores.ends()},
            **{f"seeds_averaged_{name}": run.averaged.get(name) for name in SCORES},
            **{"parameters": run.cost["total"], "trainable": run.cost["trainable"], "seconds": run.cost["seconds"]},
        }
        for run in comparison.runs
    ]
    always = {f"{name}_mean": comparison.majority[name] for name in MAJORITY_SCORES}
    label = f"always {comparison.majority['label']}"
    return [*rows, {"run": label, "kind": "majority", "rows": comparison.num_rows, **always}]


def _pairs_as_rows(pairs: Sequence[PairResult]) -> list[dict[str, Any]]:
    """The pairs for a CSV."""
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {"first": pair.first, "second": pair.second, "rows": pair.num_rows}
        row |= {"only_first_right": pair.only_first, "only_second_right": pair.only_second}
        for name, found in pair.differences.items():
            row |= {f"{name}_difference": found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            row |= {f"{name}_p": found.p_value, f"{name}_rows_needed": found.num_rows_needed}
            row |= {f"{name}_p_holm": pair.adjusted[name], f"{name}_sentence": pair.sentence(name)}
        rows.append(row)
    return rows


def draw_comparison(runs: Sequence[ComparedRun], majority: Mapping[str, Any]) -> Figure:
    """Accuracy and macro F1, each with a line per run, the first on top: a dot with its 95 % interval, pale dots for
    its seeds, a line for the majority class."""
    from matplotlib.figure import Figure  # not needed without a picture

    labels = [textwrap.fill(printable(run.name, MAX_NAME), LABEL_LENGTH) for run in runs]
    num_lines = sum(max(1, 0.5 * (1 + label.count("\n"))) for label in labels)
    figure = Figure(figsize=(10, 1.6 + 0.45 * num_lines), layout="constrained")  # inches
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
    ends = [run.scores.intervals[name] for run in runs]
    lengths = [(max(mean - low, 0), max(high - mean, 0)) for mean, (low, high) in zip(means, ends, strict=True)]
    panel.axvline(always, color=MAJORITY_COLOUR, linestyle="--", linewidth=1.2, label="majority")
    # A little below the line of the run.
    seeds = [(value, row + 0.18) for row, run in enumerate(runs) if run.seeds for value in run.scores.values[name]]
    if seeds:
        values, rows = zip(*seeds, strict=True)
        panel.scatter(values, rows, s=14, color=RUN_COLOUR, alpha=0.35, linewidths=0, label="one seed")
    panel.errorbar(
        means,
        range(len(runs)),
        xerr=list(zip(*lengths, strict=True)),
        fmt="o",
        label="run, 95 % interval",
        color=RUN_COLOUR,
        markersize=6,
        capsize=3,
        elinewidth=1.4,
    )
    panel.set_xlabel(SCORES[name])
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
