"""`python evaluate.py compare RUN RUN...`: which of several runs is better, as far as their rows can tell."""

from __future__ import annotations

import os
from pathlib import Path

from data_utils.console.screen import show
from evaluation.arguments import ComparisonArguments
from evaluation.compare.comparison import compare_runs
from evaluation.compare.report import format_comparison, write_comparison


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
