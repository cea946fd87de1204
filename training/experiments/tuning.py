"""`train.py --tune recipe.yaml --trials N`: a search for the best flags, and how far its winner's figure is flattered.

Nested folds: each of K searches chooses without one fold, which then judges its winner; one more chooses with all rows.
A search on the validation part of its rows draws its trials one after the other, each from what came of those before.
So searches are shared, and not trials: over cached features each thread and each rank has searches of its own, and
the result doesn't depend on how many there are. Trials that train towers are made by all ranks together, as any run is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import yaml

from data_utils.prepare.pairs import Pairs
from data_utils.splits.draw import find_strata, make_split
from data_utils.splits.groups import find_groups
from data_utils.splits.split_file import Split
from data_utils.system.files import write_text
from evaluation.scores.tuning_summary import score_winners, write_tuning
from modeling.errors import InputError
from run_files.output import write_table
from run_files.tuning_folder import TuningFolder
from training.experiments.cross_validation import draw_folds
from training.experiments.search import mend_journal, open_search
from training.experiments.tune_heads import search_heads
from training.experiments.tune_trainings import search_trainings
from training.experiments.tuning_recipe import TuneRecipe
from training.flags.parsing import Flags, settle
from training.heads.sweep import POLL_SECONDS
from training.launch.checks import check_same_everywhere, shares_files, wait_for_everyone
from training.launch.ranks import is_main_process
from training.launch.trackers import tracked
from training.runs.claim import lock_run, make_run_folder, open_folder
from training.runs.record import describe_run, hash_flags, hash_splits
from training.runs.tracking import show_result

logger = logging.getLogger(__name__)


def run_tuning(recipe: TuneRecipe) -> None:
    """Make the searches that aren't finished, and write tuning.json, tuning.md, trials.csv and best.yaml."""
    flags = settle(recipe.flags)
    args = flags.training.replace(output_dir=flags.training.output_dir or f"runs/tune-{recipe.name}")
    recipe = recipe._replace(flags=flags._replace(training=args))
    folder = TuningFolder(make_run_folder(recipe.flags).path)
    if not shares_files(folder.path):
        raise InputError(f"The machines of a tuning must see the same files; {folder.path} is not shared.")
    with tracked(folder.path, folder.path.name), lock_run(folder):
        splits, pairs = draw_searches(recipe.flags)
        check_same_everywhere({"data_fingerprint": pairs.fingerprint, "folds_sha256": hash_splits(splits)})
        if is_main_process():
            _open(folder, recipe, splits, pairs)
        wait_for_everyone()
        missing = _list_missing(folder, recipe)
        wait_for_everyone()  # all have looked before the first writes
        if recipe.is_cached and missing:
            search_heads(folder, recipe, splits, missing[args.process_index :: args.world_size])
        elif missing:
            search_trainings(folder, recipe, missing)
        while _list_missing(folder, recipe):
            time.sleep(POLL_SECONDS)  # of other ranks; a barrier alone gives up after --ddp_timeout
        wait_for_everyone()
        if is_main_process():
            _write_results(folder, recipe, is_shown=bool(missing and args.report_to))


def draw_searches(flags: Flags) -> tuple[list[Split], Pairs]:
    """K splits with one fold held out each, that of all rows, and the K without their folds; and the pairs."""
    folds, pairs = draw_folds(flags)
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    groups = find_groups(pairs.dataset, flags.data.group_by)
    rows = (columns["guid"], find_strata(columns["label"]), groups)
    whole = make_split(*rows, val_ratio=flags.data.val_ratio, seed=flags.training.seed)
    return [*folds, whole, *(replace(fold, test=()) for fold in folds)], pairs


def _open(folder: TuningFolder, recipe: TuneRecipe, splits: list[Split], pairs: Pairs) -> None:
    """Go on with the folder's tuning if it is this one, with more trials or not; else make room for it."""
    sections = describe_run(folder, recipe.flags, {"data_fingerprint": pairs.fingerprint})
    sections["tune"] = {name: axis._asdict() for name, axis in recipe.axes.items()} | {"folds": recipe.num_folds}
    num_ranks = None if recipe.is_cached else recipe.flags.training.world_size  # which share the rows of an update
    digest = hash_flags(sections, sections["tune"], pairs.fingerprint, hash_splits(splits), num_ranks)
    sections["environment"]["sweep_sha256"] = digest
    if folder.config_file.exists() and folder.load_arguments()["environment"].get("sweep_sha256") == digest:
        logger.info("Going on with the tuning in %s.", folder.path)
        mend_journal(folder.journal_file)
    else:
        open_folder(folder, sections, splits, pairs.quarantine)
    how = "heads train on cached features" if recipe.is_cached else "each trial is a training of its own"
    logger.info("%d searches of %d trials each; %s.", recipe.num_folds + 1, recipe.num_trials, how)


def _list_missing(folder: TuningFolder, recipe: TuneRecipe) -> list[int]:
    return [number for number in range(recipe.num_folds + 1) if not folder.find_winner(number, recipe.num_trials)]


def _write_results(folder: TuningFolder, recipe: TuneRecipe, *, is_shown: bool) -> None:
    found = [folder.find_winner(number, recipe.num_trials) for number in range(recipe.num_folds + 1)]
    winners = [winner for winner in found if winner is not None]
    searches = [open_search(folder, recipe, winner.search) for winner in winners]
    write_table(folder.path / "trials.csv", [row for each in searches for row in each.describe(recipe.num_trials)])
    best = yaml.safe_dump(recipe.list_values(winners[-1].values), sort_keys=False, allow_unicode=True)
    write_text(folder.path / "best.yaml", best)
    scores = score_winners(folder, winners)
    result, table = write_tuning(
        folder, winners, scores, recipe.metric, sign=1 if recipe.flags.training.greater_is_better else -1
    )
    if is_shown:
        for winner, each in zip(winners if recipe.is_cached else (), scores, strict=False):
            name = f"{folder.path.name}-search-{winner.search}-winner"
            show_result(recipe.parse(winner.values), folder.path, name, each)
        show_result(recipe.flags, folder.path, folder.path.name, {"test": result})
    told = "%s\nThe tuning is in %s; train its winner with: python train.py --config %s/best.yaml"
    logger.info(told, table, folder.path, folder.path)
