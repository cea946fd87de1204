"""`python evaluate.py compare RUN RUN...`: which of several runs is better, as text for the screen and as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_utils.console.screen import show
from data_utils.console.tables import format_markdown, format_table
from data_utils.system.files import write_csv, write_text
from evaluation.arguments import ComparisonArguments
from evaluation.compare.comparison import Comparison, compare_runs
from evaluation.compare.pairs import TESTS, PairResult, format_p, format_points
from evaluation.compare.plot import draw_comparison
from evaluation.compare.runs import ComparedRun
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES
from run_files.output import write_figure, write_json


def run_compare(arguments: ComparisonArguments) -> None:
    """Compare, print and, with --output, write; one rank does it all, as nothing is computed on a device.

    Raises:
        InputError: the runs can't be read or compared.
    """
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
    """Write comparison.md, .csv (runs), .json and .png, and pairs.csv; `InputError` where that can't be."""
    _write_markdown(folder / "comparison.md", comparison)
    _write_runs_csv(folder / "comparison.csv", comparison)
    _write_pairs_csv(folder / "pairs.csv", comparison.pairs)
    write_json(folder / "comparison.json", _as_json(comparison))
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
        seeds = str(len(run.seeds) or "")
        scores = map(run.scores.format, SCORES)
        rows.append([run.name, seeds, *scores, *averaged, *sizes, _format_seconds(run.cost["seconds"])])
    always = [f"{value:.3f}" for value in _majority_scores(comparison)]
    rows.append([f"always {comparison.majority['label']}", "", *always, *[""] * (len(header) - 5)])
    filled = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return [[row[column] for column in filled] for row in (header, *rows)]


def _majority_scores(comparison: Comparison) -> list[float]:
    return [comparison.majority[name] for name in ("accuracy", "macro_f1", "weighted_f1")]


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


def _format_seconds(seconds: float | None) -> str:
    """12 s, 3.4 min, 5.6 h"""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _write_markdown(path: Path, comparison: Comparison) -> None:
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
    write_text(path, "\n\n".join(parts) + "\n")


def _write_runs_csv(path: Path, comparison: Comparison) -> None:
    ends = [f"{name}_{end}" for name in INTERVAL_SCORES for end in ("low", "high")]
    scores = [*(f"{name}_{kind}" for name in SCORES for kind in ("mean", "std")), *ends]
    others = [*(f"seeds_averaged_{name}" for name in SCORES), "parameters", "trainable", "seconds"]
    rows = [["run", "path", "kind", "seeds", "rows", *scores, *others]]
    for run in comparison.runs:
        values = [value for name in SCORES for value in run.scores.spread(name)]
        values += [end for name in INTERVAL_SCORES for end in run.scores.intervals[name]]
        known = [run.name, run.path, run.kind, " ".join(run.seeds), comparison.num_rows]
        rows.append([*known, *values, *map(run.averaged.get, SCORES), *run.cost.values()])
    always = [value for score in _majority_scores(comparison) for value in (score, None)]
    known = [f"always {comparison.majority['label']}", None, "majority", None, comparison.num_rows]
    rows.append([*known, *always, *[None] * (len(rows[0]) - len(known) - len(always))])
    write_csv(path, rows)


def _write_pairs_csv(path: Path, pairs: Sequence[PairResult]) -> None:
    columns = ("difference", "low", "high", "p", "rows_needed", "p_holm", "sentence")
    header = ["first", "second", "rows", "only_first_right", "only_second_right"]
    rows: list[list[Any]] = [[*header, *(f"{name}_{column}" for name in TESTS for column in columns)]]
    for pair in pairs:
        row = [pair.first, pair.second, pair.num_rows, pair.only_first, pair.only_second]
        for name, difference in pair.differences.items():
            row += [*asdict(difference).values(), pair.adjusted[name], pair.sentence(name)]
        rows.append(row)
    write_csv(path, rows)


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "num_rows": comparison.num_rows,
        "label_names": comparison.label_names,
        "models": [_run_as_json(run) for run in comparison.runs],
        "majority": comparison.majority,
        "pairs": [
            asdict(pair) | {"sentences": {name: pair.sentence(name) for name in TESTS}} for pair in comparison.pairs
        ],
        "remarks": comparison.remarks,
    }


def _run_as_json(run: ComparedRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": run.path,
        "kind": run.kind,
        "seeds": list(run.seeds),
        "values": run.scores.values,
        "intervals": run.scores.intervals,
        "seeds_averaged": run.averaged,
        "cost": run.cost,
        "mean": run.scores.mean,
        "std": run.scores.std,
    }
