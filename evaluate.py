"""Scores a run, measures its modalities, predicts pairs or compares runs: `python evaluate.py RUN`, see `--help`.

This file has the name of an installed package that the project and its libraries import. So it does its own work only
when it is run; imported under the name `evaluate`, it hands over to that package (see `_give_way`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, run, close; a mistake of the user's ends with one line and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads don't go with the processes of `datasets`
    # Not above: whoever imports the package `evaluate` executes this file too.
    from evaluation.arguments import parse_arguments, parse_comparison
    from run_files.run_folder import RunFolder
    from training.launch.console import exit_on_user_error, set_up_libraries, set_up_logging
    from training.launch.ranks import shut_down_distributed

    set_up_logging()
    with exit_on_user_error():
        words = sys.argv[1:] if argv is None else list(argv)
        # What works is imported after the flags are parsed: it takes seconds, which --help needn't wait for.
        if words[:1] == ["compare"]:
            comparison = parse_comparison(words[1:])
            from evaluation.compare.report import run_compare

            return run_compare(comparison)
        arguments = parse_arguments(words)
        RunFolder(arguments.run).check_config()
        if arguments.report:
            from evaluation.report.session import run_report as work
        else:
            from evaluation.tasks.session import run_evaluation as work

        set_up_libraries()
        work(arguments)
        shut_down_distributed()


def _give_way() -> None:
    """Put the first `evaluate` of `sys.path` that is a regular package in this module's place, where imports look."""
    for entry in sys.path:
        spec = PathFinder.find_spec("evaluate", [entry])
        if spec is not None and spec.submodule_search_locations and spec.loader is not None:
            sys.modules["evaluate"] = package = module_from_spec(spec)
            return spec.loader.exec_module(package)
    raise ModuleNotFoundError("The package evaluate is not installed; pip install -r requirements.txt", name="evaluate")


if __name__ == "evaluate":
    _give_way()
elif __name__ == "__main__":
    main()
