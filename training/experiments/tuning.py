"""`train.py --tune recipe.yaml --trials N`: a search for the best flags, and how far its winner's figure is flattered.

Nested folds: each of K searches chooses without one fold, which then judges its winner; one more chooses with all rows.
A search on the validation part of its rows draws its trials one after the other, each from what came of those before.
So searches are shared, and not trials: over cached features each thread and each rank has searches of its own, and
the result doesn't depend on how many there are. Trials that train towers are made by all ranks together, as any run is.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar

import yaml
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl

from data_utils.console.progress import progress
from data_utils.prepare.pairs import Pairs
from data_utils.splits.draw import find_strata, make_split
from data_utils.splits.groups import group_ids
from data_utils.splits.split_file import Split
from data_utils.system.files import remove, write_text
from evaluation.scores.tuning_summary import score_winners, write_tuning
from modeling.errors import InputError
from run_files.output import write_table
from run_files.predictions_csv import read_predictions_csv
from run_files.run_folder import RunFolder
from run_files.tuning_folder import TuningFolder
from training.engine.trainer import NonFiniteLossError
from training.experiments.cross_validation import draw_folds
from training.experiments.search import Attempt, Search, mend_journal
from training.experiments.training import train
from training.experiments.tuning_recipe import TuneRecipe
from training.flags.parsing import Flags, settle
from training.heads.side_by_side import train_side_by_side
from training.heads.sweep import POLL_SECONDS, Sweep, run_trial
from training.heads.sweep_recipe import SweepRecipe, Trial
from training.launch.checks import check_same_everywhere, shares_files, wait_for_everyone
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.launch.trackers import tracked
from training.runs.claim import lock_run, make_run_folder, open_folder
from training.runs.record import describe_run, hash_flags, hash_splits
from training.runs.run import note_interruption
from training.runs.tracking import show_result

logger = logging.getLogger(__name__)
T = TypeVar("T")
Share = Callable[[Callable[[], Any]], Any]
Prunes = Callable[[float, int], bool]
_PARSING = Lock()  # which makes notices quiet for all threads


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
            _search_heads(folder, recipe, splits, missing[args.process_index :: args.world_size])
        elif missing:
            _search_trainings(folder, recipe, missing)
        while _list_missing(folder, recipe):
            time.sleep(POLL_SECONDS)  # of other ranks; a barrier alone gives up after --ddp_timeout
        wait_for_everyone()
        if is_main_process():
            _write_results(folder, recipe, is_shown=bool(missing and args.report_to))


def draw_searches(flags: Flags) -> tuple[list[Split], Pairs]:
    """K splits with one fold held out each, that of all rows, and the K without their folds; and the pairs."""
    folds, pairs = draw_folds(flags)
    columns, groups = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:], group_ids(pairs.dataset)
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


def _conduct(
    number: int,
    folder: TuningFolder,
    recipe: TuneRecipe,
    attempt: Callable[[Flags, int, str, Prunes | None], Attempt],
    *,
    share: Share = lambda work: work(),
) -> None:
    """Make one search, and let its winner be judged by rows that it never saw.

    Args:
        attempt: trains by flags on the split of a number, under a name; it may be told to give up.
        share: has work on the study done, and its result known to this rank.
    """
    last = recipe.num_folds
    seen = last if number == last else last + 1 + number
    opened: list[Search] = []

    def prunes(value: float, step: int) -> bool:
        return share(lambda: opened[0].prunes(value, step))

    def make(values: dict[str, Any], split: int, name: str, prunes: Prunes | None) -> Attempt:
        try:
            with _PARSING, quiet(True):
                flags = recipe.parse(values)
        except InputError as error:  # flags that are right each for itself
            return Attempt(None, {"error": str(error)})
        return attempt(flags, split, f"search-{number}-{name}", prunes)

    share(lambda: opened.append(_open_search(folder, recipe, number)))
    while (asked := share(lambda: opened[0].ask(recipe.num_trials))) is not None:
        made = make(asked[1], seen, f"trial-{asked[0]}", prunes)
        share(partial(lambda made: opened[0].tell(made), made))
    winner = share(lambda: opened[0].choose(recipe.num_trials))
    made = make(winner.values, number, "winner", None)
    if made.inner is not None:  # of many ranks the main one has it
        folder.write_winner(winner, made.inner, made.outer)


def _search_heads(folder: TuningFolder, recipe: TuneRecipe, splits: list[Split], share: list[int]) -> None:
    """This rank's share of the searches, over what frozen towers gave for all rows."""
    heads = [recipe.parse({"fusion": name}) for name in recipe.heads]
    trials = tuple(Trial(number, {}, None, (), flags) for number, flags in enumerate(heads))
    sweep = Sweep(SweepRecipe(recipe.name, {}, None, trials), splits)
    sweep.choose_precision()
    features = sweep.read_features(sweep.recipe.trials)
    settled, args = sweep.recipe.trials[0].flags.training, recipe.flags.training
    total, is_shown = len(share) * (recipe.num_trials + 1), is_main_process() and not args.disable_tqdm
    bar: Any = progress(total=total, description="tuning", unit="trainings", is_shown=is_shown)

    def attempt(flags: Flags, split: int, *_: Any, stop: Event) -> Attempt:
        own = flags.training.replace(bf16=settled.bf16, mixed_precision=settled.mixed_precision)
        trial = Trial(0, {}, split, (), flags._replace(training=own))
        record, found = run_trial(trial, stop, sweep=sweep, features=features, folder=folder)
        with _PARSING:
            bar.update()
        remarks = {"seconds": round(record.seconds, 2), "best_epoch": record.best_epoch}
        if record.metrics is None or found is None:
            return Attempt(None, remarks | {"error": record.error})
        value = record.metrics[recipe.metric]
        return Attempt(value, remarks | record.metrics, inner=found.best, outer=found.held_out)

    def search(number: int, stop: Event) -> tuple[()]:
        _conduct(number, folder, recipe, partial(attempt, stop=stop))
        return ()

    with bar:
        if all(rows.are_light for rows in features.values()):
            train_side_by_side(share, search, lambda: None)
        else:
            for number in share:
                search(number, Event())


def _search_trainings(folder: TuningFolder, recipe: TuneRecipe, missing: list[int]) -> None:
    """These searches, each trial a training by all ranks together, of which no model is kept."""

    def attempt(flags: Flags, split: int, name: str, prunes: Prunes | None) -> Attempt:
        run = RunFolder(folder.path / "members" / name)
        data = replace(flags.data, split_file=str(folder.fold_split_file(split)), overwrite_cache=False)
        names = {"output_dir": str(run.path), "run_name": f"{folder.path.name}-{name}"}
        args = flags.training.replace(**names, resume_from_checkpoint=None)
        with note_interruption(folder, args):
            made = _train_alone(Flags(flags.model, data, args), run, prunes, recipe.metric)
        if is_main_process():
            logger.info("%s: %s %s", name, recipe.metric, "none" if made.value is None else f"{made.value:.3f}")
        return made

    for number in missing:
        _conduct(number, folder, recipe, attempt, share=_on_main_rank)


def _train_alone(flags: Flags, run: RunFolder, prunes: Prunes | None, metric: str) -> Attempt:
    """Train as train.py does, from the beginning, and keep what it says; the main rank has the figures."""
    if is_main_process():
        remove(run.path)
    wait_for_everyone()
    watcher, error = _Watcher(prunes, metric), None
    try:
        with quiet(True):
            train(flags, [watcher])
    except NonFiniteLossError as failure:
        error = str(failure)
    gc.collect()
    AcceleratorState._reset_state()  # or accelerate refuses a second DeepSpeed engine
    wait_for_everyone()
    if not is_main_process():
        return Attempt(None, {})
    for path in (run.model_dir, run.checkpoints_dir):
        remove(path)
    if error is not None:
        return Attempt(None, {"error": error})
    metrics: dict[str, Any] = run.load_metrics()
    remarks: dict[str, Any] = {name: value for name, value in metrics["val"].items() if isinstance(value, int | float)}
    remarks |= {"seconds": metrics["training"]["seconds"], "best_epoch": (metrics["best"] or {}).get("epoch")}
    files = run.predictions_files.values()
    tables = [read_predictions_csv(path, any_task=True) if path.exists() else None for path in files]
    return Attempt(metrics["val"][metric], remarks, watcher.has_stopped, *tables)


class _Watcher(TrainerCallback):
    """Tells the search of each evaluation, and ends a training that is given up."""

    def __init__(self, prunes: Prunes | None, metric: str) -> None:
        self._prunes, self._metric = prunes, f"eval_{metric}"
        self._count, self.has_stopped = 0, False

    def on_evaluate(self, args: Any, state: Any, control: TrainerControl, metrics: dict[str, float], **_: Any) -> None:
        """Called on every rank."""
        self._count += 1
        value = metrics[self._metric]  # None where such rows don't define it
        if self._prunes is not None and value is not None and self._prunes(value, self._count):
            control.should_training_stop = self.has_stopped = True


def _write_results(folder: TuningFolder, recipe: TuneRecipe, *, is_shown: bool) -> None:
    found = [folder.find_winner(number, recipe.num_trials) for number in range(recipe.num_folds + 1)]
    winners = [winner for winner in found if winner is not None]
    searches = [_open_search(folder, recipe, winner.search) for winner in winners]
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


def _open_search(folder: TuningFolder, recipe: TuneRecipe, number: int) -> Search:
    args = recipe.flags.training
    better = bool(args.greater_is_better)
    return Search(folder.journal_file, number, recipe.axes, seed=args.seed, is_greater_better=better)


def _on_main_rank(work: Callable[[], T]) -> T:
    """What the main rank finds, told to all."""
    found: list[Any] = [work() if is_main_process() else None]
    broadcast_object_list(found)
    return found[0]
