"""`python evaluate.py compare RUN RUN...`: which of several runs is better, as far as their rows can tell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from data_utils.console.screen import show
from evaluation.arguments import ComparisonArguments
from evaluation.compare.models import score_majority, score_model
from evaluation.compare.pairs import compare_pairs
from evaluation.compare.plot import plot_comparison
from evaluation.compare.report import Comparison, find_remarks, format_comparison, write_comparison
from evaluation.compare.runs import align_runs, load_runs


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
        write_all(Path(arguments.output), comparison)
        show(f"\nSaved in {arguments.output}.")


def write_all(folder: Path, comparison: Comparison) -> None:
    """Write the tables and the picture."""
    write_comparison(folder, comparison)
    plot_comparison(folder / "comparison.png", comparison.models, comparison.majority)


def compare_runs(paths: Sequence[str], *, common_rows: bool = False) -> Comparison:
    """Read runs and compare them.

    Args:
        paths: two or more folders or files.
        common_rows: compare the rows that all judge, where some judge others too.

    Raises:
        InputError: a run can't be read, or they judge other rows, classes or labels.
    """
    found = load_runs(paths)
    runs = align_runs(found, common_rows=common_rows)
    models = [score_model(run) for run in runs]
    majority = score_majority(runs[0].table)
    num_rows = len(runs[0].table.guids)
    num_left_out = len(set().union(*(run.table.guids for run in found))) - num_rows
    return Comparison(
        num_rows=num_rows,
        label_names=runs[0].table.label_names,
        models=models,
        majority=majority,
        pairs=compare_pairs(runs),
        remarks=find_remarks(runs, models, majority, num_left_out=num_left_out),
    )
