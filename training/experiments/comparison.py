"""`train.py --compare recipe.yaml`: several runs over the same rows, and the tables that set them side by side."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evaluation.compare.comparison import compare_runs
from evaluation.compare.report import format_comparison, write_comparison
from evaluation.compare.runs import check_same_classes, check_same_rows
from modeling.errors import InputError
from training.build.plan import check_sources
from training.experiments.cross_validation import check_supported, cross_validate, draw_folds
from training.flags.own import LATEST
from training.flags.parsing import Flags, parse_arguments, settle
from training.flags.recipe import find_recipe, join_words, read_runs, write_words
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.runs.claim import make_run_folder

logger = logging.getLogger(__name__)


class ComparisonRecipe(NamedTuple):
    """The folder of the tables and of a run folder for each name, and the command line of each run by its name."""

    path: Path
    runs: dict[str, list[str]]


def read_comparison(argv: Sequence[str]) -> ComparisonRecipe | None:
    """The comparison that the command line asks for with `--compare recipe.yaml`; None without the flag.

    A recipe is flags of train.py and a section `runs` of {name: {flag: value}}; the command line wins over both.
    """
    starter, path, rest = find_recipe(argv)
    if starter != "--compare":
        return None
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--output_dir", "--output-dir")
    known, rest = finder.parse_known_args(rest)
    shared, runs = read_runs(path)
    (default,) = write_words("output_dir", shared.get("output_dir") or f"runs/{path.stem}")
    folder = Path(known.output_dir or default)
    # The folder's word counts, which is the last.
    words = {name: [*join_words(shared | own, rest), "--output_dir", str(folder / name)] for name, own in runs.items()}
    return ComparisonRecipe(folder, words)


def run_comparison(recipe: ComparisonRecipe) -> None:
    """Train what isn't finished of all runs, and write comparison.md, .csv, .json and .png."""
    for name, flags in check_comparison(recipe).items():
        logger.info("Run %s.", name)
        cross_validate(flags)
    if is_main_process():
        comparison = compare_runs([str(recipe.path / name) for name in recipe.runs])
        write_comparison(recipe.path, comparison)
        logger.info("%s\nThe comparison is in %s.", format_comparison(comparison), recipe.path)


def check_comparison(recipe: ComparisonRecipe) -> dict[str, Flags]:
    """The flags of each run, all checked before the first is trained; the data are prepared on the way."""
    parsed: dict[str, Flags] = {}
    for name, words in recipe.runs.items():
        with _naming(name), quiet(bool(parsed)):
            parsed[name] = settle(_parse_run(words))
    check_same_classes({name: flags.data.labels for name, flags in parsed.items()})
    logger.info("Looking at the rows of all runs.")
    judged: dict[str, dict[str, str]] = {}
    for name, flags in parsed.items():
        with _naming(name), quiet(True):  # a run says it again
            judged[name] = _find_judged(flags)
    check_same_rows(judged, "Give all runs the same data_dir, train_file and on_bad_pair")
    for name, flags in parsed.items():
        with _naming(name):
            make_run_folder(flags)
    # What is to be overwritten was, while it was looked at.
    return {name: flags._replace(data=replace(flags.data, overwrite_cache=False)) for name, flags in parsed.items()}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say whose mistake it is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"The run {name} of the comparison: {error}") from error


def _parse_run(words: Sequence[str]) -> Flags:
    """The run's flags, as far as they can be judged without its data; it goes on where it was cut off."""
    flags = parse_arguments(words)
    if flags.training.folds is None:
        raise InputError(
            "it has no folds; write `folds: 5` into the recipe. Runs of one split are compared by evaluate.py compare."
        )
    flags.data.refuse_tasks("a comparison")
    check_supported(flags)
    check_sources(flags.model)
    return flags._replace(training=flags.training.replace(resume_from_checkpoint=LATEST))


def _find_judged(flags: Flags) -> dict[str, str]:
    """The guids of the rows that the folds hold out, and their labels."""
    splits, pairs = draw_folds(flags)
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    labels = dict(zip(columns["guid"], columns["label"], strict=True))
    return {guid: flags.data.labels[labels[guid]] for split in splits for guid in split.test}
