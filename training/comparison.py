"""`train.py --compare recipe.yaml`: several runs over the same rows, and the tables that set them side by side."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_utils.arguments import DataArguments
from data_utils.errors import InputError
from evaluation.compare import compare_runs, write_all
from evaluation.compare_report import format_comparison
from modeling.arguments import ModelArguments
from training.arguments import LATEST, SentimentTrainingArguments
from training.console import quiet
from training.launch import is_main_process
from training.parsing import parse_arguments, read_recipe, to_flags

logger = logging.getLogger(__name__)
SECTION = "runs"
Arguments = tuple[ModelArguments, DataArguments, SentimentTrainingArguments]
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class ComparisonRecipe:
    """What is to be compared.

    Attributes:
        path: folder of the tables, and of a run folder for each name.
        runs: the command line of each run, by its name.
    """

    path: Path
    runs: dict[str, list[str]]


def read_comparison(argv: Sequence[str]) -> ComparisonRecipe | None:
    """The comparison that the command line asks for with `--compare recipe.yaml`; None without the flag.

    A recipe is flags of train.py and a section `runs` of {name: {flag: value}}; the command line wins over both.

    Raises:
        InputError: the recipe, or the flags of one of its runs, can't be used.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--compare", "--config", "--sweep", "--output_dir"):
        finder.add_argument(flag)
    known, rest = finder.parse_known_args(argv)
    if known.compare is None:
        return None
    if known.config is not None or known.sweep is not None:
        raise InputError(f"Got --compare {known.compare} beside --config or --sweep; its recipe holds all flags.")
    path = Path(known.compare)
    values = read_recipe(path)
    runs = values.pop(SECTION, None)
    _check_runs(path, runs)
    folder = Path(known.output_dir or values.pop("output_dir", None) or f"runs/{path.stem}")
    values.pop("output_dir", None)
    return ComparisonRecipe(
        folder,
        {
            name: [*to_flags(values | own), *rest, "--output_dir", str(folder / name)]
            for name, own in ((name, own or {}) for name, own in runs.items())
        },
    )


def _check_runs(path: Path, runs: object) -> None:
    is_named = isinstance(runs, dict) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in runs)
    if not is_named or len(runs) < 2 or not all(own is None or isinstance(own, dict) for own in runs.values()):
        raise InputError(
            f"The recipe {path} has no section `{SECTION}` with two runs or more; write {SECTION}: and below it lines "
            "like `small: {fusion: early}`, with names of letters, digits, dots and dashes."
        )


def run_comparison(recipe: ComparisonRecipe, *, run: Callable[..., None]) -> None:
    """Train what isn't finished of all runs, and write comparison.md, .csv, .json and .png.

    Args:
        recipe: what is compared.
        run: trains what parsed flags ask for.

    Raises:
        InputError: before anything is trained, for flags that can't be used, or no folds; afterwards as a run says.
    """
    parsed: dict[str, Arguments] = {}
    for name, words in recipe.runs.items():
        with quiet(bool(parsed)):
            parsed[name] = parse_arguments([*words, "--resume_from_checkpoint", LATEST])
        if parsed[name][2].folds is None:
            raise InputError(
                f"The run {name} of the comparison has no folds; write `folds: 5` into the recipe. Runs of one split "
                "are compared by evaluate.py compare."
            )
    for name, arguments in parsed.items():
        logger.info("Run %s.", name)
        run(*arguments)
    if is_main_process():
        comparison = compare_runs([str(recipe.path / name) for name in recipe.runs])
        write_all(recipe.path, comparison)
        logger.info("%s\nThe comparison is in %s.", format_comparison(comparison), recipe.path)
