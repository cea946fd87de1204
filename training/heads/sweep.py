"""`train.py --sweep recipe.yaml`: many heads over one pass of the frozen towers, in one process or dealt to several."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import torch

from data_utils.console.progress import progress
from data_utils.console.screen import printable
from data_utils.splits.split_file import save_split
from evaluation.scores.sweep_summary import write_summary
from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable
from run_files.sweep_folder import SweepFolder, TrialPredictions, TrialRecord
from training.build.parameters import parameter_table
from training.build.plan import ModelPlan, plan_model
from training.engine.trainer import NonFiniteLossError
from training.flags.recipe import to_flags
from training.heads.head_trainer import FeatureRows, train_head
from training.heads.sweep_data import HeadBuilder, SweepData, prepare_sweep, read_features
from training.heads.sweep_recipe import SweepRecipe, Trial
from training.launch.checks import check_same_everywhere, shares_files, wait_for_everyone
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.runs.claim import lock_run, make_run_folder, move_aside
from training.runs.record import describe_run, hash_flags

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0
Outcome = tuple[TrialRecord, TrialPredictions | None]


def run_sweep(recipe: SweepRecipe) -> None:
    """Train all trials of the recipe that aren't finished yet, and write the tables.

    Raises:
        InputError: data, towers or folder can't be used; it says why.
    """
    first = recipe.trials[0]
    args = first.training.replace(output_dir=first.training.output_dir or f"runs/sweep-{recipe.name}")
    run = make_run_folder(first.model, args)
    if not shares_files(run.path):
        raise InputError(f"The machines of a sweep must see the same files; {run.path} is not shared.")
    with lock_run(run):
        plan = plan_towers(recipe)
        data = prepare_sweep(recipe, plan)
        check_same_everywhere(data.fingerprints())
        recipe = _choose_precision(HeadBuilder(recipe, data, plan))
        heads = HeadBuilder(recipe, data, plan)
        folder = SweepFolder(run.path)
        if is_main_process():
            open_sweep(folder, recipe, data)
        wait_for_everyone()
        _train_missing(folder, heads)
        wait_for_trials(folder, recipe)
        if is_main_process():
            table = write_summary(folder, args.metric_for_best_model)
            logger.info("%s\nThe sweep is in %s.", table, folder.path)


def open_sweep(folder: SweepFolder, recipe: SweepRecipe, data: SweepData) -> None:
    """Go on with the folder's sweep if it is this one; else make room for it, and write what is known beforehand."""
    first = recipe.trials[0]
    sections = describe_run(folder, first.model, recipe.data, first.training, data.fingerprints())
    sections["model"] = _merge([asdict(trial.model) for trial in recipe.trials])
    sections["training"] = _merge([trial.training.to_plain_dict() for trial in recipe.trials])
    sections["training"]["output_dir"] = str(folder.path)
    sections["sweep"] = {**{name: list(values) for name, values in recipe.axes.items()}, "folds": recipe.num_folds}
    digest = hash_flags(sections, sections["sweep"], data.fingerprints())
    sections["environment"]["sweep_sha256"] = digest
    if folder.config_file.exists():
        if folder.load_arguments()["environment"].get("sweep_sha256") == digest:
            if damaged := folder.drop_damaged():
                numbers = ", ".join(map(str, damaged))
                logger.warning("Trained again, since files of theirs are damaged or gone: trials %s.", numbers)
            logger.info("Going on with the sweep in %s: %d trials are there.", folder.path, len(folder.finished()))
            return
        move_aside(folder.path)
    for number, split in enumerate(data.splits):
        save_split(split, folder.split_file_of(None if recipe.num_folds is None else number))
    data.prepared.quarantine.save(folder.quarantine_file)
    folder.save_arguments(sections)  # last: where it stands, the next start goes on and writes none of these
    data.prepared.quarantine.tell(folder.quarantine_file)


def wait_for_trials(folder: SweepFolder, recipe: SweepRecipe) -> None:
    """Until the trials of all ranks are there: a barrier alone gives up after --ddp_timeout.

    If a rank dies, its launcher ends the others.
    """
    while len(folder.finished() & {trial.number for trial in recipe.trials}) < len(recipe.trials):
        time.sleep(POLL_SECONDS)
    wait_for_everyone()


def plan_towers(recipe: SweepRecipe) -> ModelPlan:
    """The towers of all trials: both where any head uses a text and any a picture."""
    model = recipe.trials[0].model
    if len({kind for trial in recipe.trials for kind in trial.model.modalities}) > 1:
        model = replace(model, fusion="early")  # vilbert would leave one of them at random for a head that has no use
    return plan_model(model, recipe.data)


def _choose_precision(heads: HeadBuilder) -> SweepRecipe:
    """One precision for all trials, that of a model with as many towers as any of them has."""

    def rank(trial: Trial) -> tuple[int, str]:
        return len(trial.model.modalities), trial.model.fusion  # the name, or the order of the list would decide

    model, trials = heads.build(max(heads.recipe.trials, key=rank)), []
    for trial in heads.recipe.trials:
        with quiet(trial.number > 0):
            trials.append(replace(trial, training=trial.training.with_precision_for(model)))
    return replace(heads.recipe, trials=tuple(trials))


def _train_missing(folder: SweepFolder, heads: HeadBuilder) -> None:
    """Train this rank's share of the trials that aren't finished."""
    args = heads.recipe.trials[0].training
    finished = folder.finished()
    missing = [trial for trial in heads.recipe.trials if trial.number not in finished]
    wait_for_everyone()  # all have looked before the first writes
    if not missing:
        return
    features = read_features(heads, missing)
    share = missing[args.process_index :: args.world_size]
    light = [trial for trial in share if features[trial.model.fusion].are_light]
    train = partial(_run_trial, heads=heads, features=features, folder=folder)
    is_shown = is_main_process() and not args.disable_tqdm
    with progress(total=len(share), description="sweep", unit="trials", is_shown=is_shown) as bar:

        def finish(record: TrialRecord, predictions: TrialPredictions | None) -> None:
            folder.write_trial(record, predictions)
            if record.error is not None:
                bar.write(printable(f"trial {record.number} ({record.values}): {record.error}"))
            bar.update()

        train_side_by_side(light, train, finish)
        for trial in share:
            if trial not in light:
                finish(*train(trial, Event()))


def train_side_by_side(
    trials: Sequence[Trial],
    train: Callable[[Trial, Event], Outcome],
    finish: Callable[[TrialRecord, TrialPredictions | None], None],
) -> None:
    """Train each in a thread that computes alone, so that its figures don't depend on how many there are.

    `train` raises anything once it is told to stop; `finish` is called in this thread.
    """
    num_threads, stop = torch.get_num_threads(), Event()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done in as_completed([pool.submit(train, trial, stop) for trial in trials]):
            finish(*done.result())
    finally:
        stop.set()  # after an error or a signal nobody waits for trials to end
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)


def _run_trial(
    trial: Trial, stop: Event, *, heads: HeadBuilder, features: Mapping[str, FeatureRows], folder: SweepFolder
) -> Outcome:
    start, data = time.perf_counter(), heads.data
    train_rows, val_rows = data.parts[trial.fold or 0]
    model = heads.build(trial)
    # With which train.py trains the same into a folder of its own: the later ones win.
    own = {"split_file": str(folder.split_file_of(trial.fold)), "bf16": trial.training.bf16}
    own["output_dir"] = f"{folder.path}-{trial.number:04d}"
    record = TrialRecord(trial.number, dict(trial.values), [*trial.flags, *to_flags(own)], seconds=0.0)
    try:
        best, last = train_head(
            model,
            features[trial.model.fusion],
            train_rows,
            val_rows,
            labels=data.labels,
            args=trial.training,
            stop=stop,
        )
    except NonFiniteLossError as error:
        return replace(record, seconds=time.perf_counter() - start, error=str(error)), None
    record = replace(
        record,
        seconds=time.perf_counter() - start,
        best_epoch=best.epoch,
        metrics=dict(best.metrics),
        last_metrics=dict(last.metrics),
        parameters=dict(parameter_table(model)),
    )
    guids, labels = ([values[row] for row in val_rows.tolist()] for values in (data.guids, data.labels))
    names = tuple(heads.recipe.data.labels)
    tables = (PredictionTable(tuple(guids), np.array(labels), each.probabilities, names) for each in (best, last))
    return record, TrialPredictions(*tables)


def _merge(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{name: value}, or a list of the values where the sections differ."""
    merged = {}
    for name, value in sections[0].items():
        values = [section[name] for section in sections]
        distinct = [value for number, value in enumerate(values) if value not in values[:number]]
        merged[name] = distinct if len(distinct) > 1 else value
    return merged
