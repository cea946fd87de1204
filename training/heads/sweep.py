"""`train.py --sweep recipe.yaml`: many heads over one pass of the frozen towers, in one process or dealt to several."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from threading import Event, Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import set_seed

from data_utils.console.progress import progress
from data_utils.console.screen import printable
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from data_utils.splits.draw import make_folds
from data_utils.splits.groups import check_fold_sizes
from data_utils.splits.split_file import Split
from data_utils.splits.splits import split_indices
from evaluation.scores.scoring import score_predictions
from evaluation.scores.sweep_summary import write_summary
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from modeling.towers import Tower
from run_files.predictions_csv import PredictionTable
from run_files.sweep_folder import SweepFolder, TrialPredictions, TrialRecord
from training.build.build import build_model
from training.build.parameters import parameter_table
from training.build.plan import ModelPlan, plan_model
from training.data.data import prepare_data
from training.data.features import use_features
from training.engine.trainer import NonFiniteLossError
from training.flags.parsing import settle
from training.flags.recipe import to_flags
from training.heads.head_trainer import FeatureRows, train_head
from training.heads.side_by_side import train_side_by_side
from training.heads.sweep_recipe import NO_VALIDATION, SweepRecipe, Trial
from training.launch.checks import check_same_everywhere, shares_files, wait_for_everyone
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.launch.trackers import tracked
from training.runs.claim import lock_run, make_run_folder, open_folder
from training.runs.record import describe_run, hash_flags, hash_splits
from training.runs.tracking import show_result

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0
Outcome = tuple[TrialRecord, TrialPredictions | None]


class Sweep:
    """All rows that any trial sees, prepared once, and the trials' models, which share their frozen towers.

    Attributes:
        recipe: whose trials have one precision, that of a model with as many towers as any of them has.
        plan: of the towers.
        rows: N of `prepared`, in the order of the list.
        guids: of the N rows.
        splits: one, or one per fold, drawn by the first trial's seed.
        parts: for each split the rows for training, for validation and held out, as ascending numbers from 0 to N - 1.
    """

    def __init__(self, recipe: SweepRecipe, splits: Sequence[Split] = ()) -> None:
        """Prepare the data, and deal them by `splits`, or into folds where the recipe asks for some."""
        self.recipe, self.plan = recipe, plan_towers(recipe)
        (model, data, args), num_folds = recipe.trials[0].flags, recipe.num_folds
        self.prepared = prepared = prepare_data(
            data if num_folds is None and not splits else replace(data, val_ratio=0.0), self.plan, model, seed=args.seed
        )
        wanted = np.sort(np.concatenate([prepared.train_rows, prepared.val_rows]))
        self.rows = prepared.rows.select(wanted)
        self.guids = tuple(self.rows["guid"][:])
        if splits:
            self.splits = [*splits]
        elif num_folds is None:
            if not len(prepared.val_rows):
                raise InputError(NO_VALIDATION)
            self.splits = [prepared.split]
        else:
            groups = prepared.groups[wanted]
            self.splits = [*make_folds(self.guids, self.rows["label"][:], groups, num_folds=num_folds, seed=args.seed)]
            check_fold_sizes(self.splits, self.rows, groups)
        dealt = self.splits if splits else [replace(split, test=()) for split in self.splits]  # whose rows aren't here
        with quiet(num_folds is None):  # it was said while they were drawn
            self.parts = [tuple(map(torch.from_numpy, split_indices(split, self.guids))) for split in dealt]
        self._towers: dict[str, Tower] = {}
        self._lock = Lock()

    def fingerprints(self) -> dict[str, str]:
        """Hashes of all that shaped the rows and their splits."""
        return self.prepared.fingerprints() | {"folds_sha256": hash_splits(self.splits)}

    def choose_precision(self) -> None:
        """Give all trials the precision of the largest model."""

        def rank(trial: Trial) -> tuple[int, str]:
            return len(trial.flags.model.modalities), trial.fusion  # the name, or the order of the list would decide

        model, trials = self.build(max(self.recipe.trials, key=rank)), []
        for trial in self.recipe.trials:
            with quiet(trial.number > 0):
                args = trial.flags.training.with_precision_for(model)
                trials.append(replace(trial, flags=trial.flags._replace(training=args)))
        self.recipe = self.recipe._replace(trials=tuple(trials))

    def build(self, trial: Trial) -> SentimentClassifier:
        """The model that train.py would begin with, on its device; several threads may call it."""
        model_args, data_args, args = trial.flags
        with self._lock:  # initial weights are drawn from the one generator of the process
            set_seed(args.seed)
            model = build_model(
                self.plan,
                model_args,
                tokenizer=self.prepared.tokenizer,
                labels=data_args.labels,
                text_cleaning=data_args.text_cleaning,
                towers=self._towers,
            )
            self._towers |= model.towers()
            return model.to(args.device)

    def read_features(self, trials: Iterable[Trial]) -> dict[str, FeatureRows]:
        """What the frozen towers make of all rows, by the trials' heads; those of the same needs share it in memory."""
        trial_of = {trial.fusion: trial for trial in trials}
        args = self.recipe.trials[0].flags.training
        found: dict[str, FeatureRows] = {}
        for reader in dict.fromkeys(choose_reader(fusion, trial_of) for fusion in trial_of):
            model_args, data_args, _ = trial_of[reader].flags
            prepared, collator = use_features(
                self.build(trial_of[reader]),
                self.prepared,
                PairCollator(self.prepared.tokenizer.pad_token_id, self.plan.picture.image_size),
                model_args=model_args,
                data_args=data_args,
                args=args,
            )
            rows = prepared.rows.select(np.sort(np.concatenate([prepared.train_rows, prepared.val_rows])))
            found[reader] = FeatureRows(add_row_index(rows), collator, args.device)
        return {fusion: found[choose_reader(fusion, trial_of)] for fusion in trial_of}


def choose_reader(fusion: str, fusions: Iterable[str]) -> str:
    """The head among `fusions` whose features serve this one too: with vectors of both modalities, if there is one."""
    if FUSION_HEADS[fusion].reads_tokens:
        return fusion
    both = (name for name in fusions if len(FUSIONS[name]) > 1 and not FUSION_HEADS[name].reads_tokens)
    return next(both, fusion)


def plan_towers(recipe: SweepRecipe) -> ModelPlan:
    """The towers of all trials: both where any head uses a text and any a picture."""
    model, data, _ = recipe.trials[0].flags
    if len({kind for trial in recipe.trials for kind in trial.flags.model.modalities}) > 1:
        model = replace(model, fusion="early")  # vilbert would leave one of them at random for a head that has no use
    return plan_model(model, data)


def run_sweep(recipe: SweepRecipe) -> None:
    """Train all trials of the recipe that aren't finished yet, and write the tables."""
    first = settle(recipe.trials[0].flags)
    labelled = partial(replace, labels=first.data.labels)  # all are of the same data
    trials = tuple(replace(each, flags=each.flags._replace(data=labelled(each.flags.data))) for each in recipe.trials)
    recipe = recipe._replace(trials=trials)
    args = first.training.replace(output_dir=first.training.output_dir or f"runs/sweep-{recipe.name}")
    run = make_run_folder(first._replace(training=args))
    if not shares_files(run.path):
        raise InputError(f"The machines of a sweep must see the same files; {run.path} is not shared.")
    with tracked(run.path, run.path.name), lock_run(run):
        sweep, folder = Sweep(recipe), SweepFolder(run.path)
        check_same_everywhere(sweep.fingerprints())
        sweep.choose_precision()
        if is_main_process():
            open_sweep(folder, sweep)
        wait_for_everyone()
        is_new = _train_missing(folder, sweep)
        wait_for_trials(folder, recipe)
        if is_main_process():
            if is_new and args.report_to:
                _show_trials(folder, sweep.recipe)
            table = write_summary(folder, str(args.metric_for_best_model))
            logger.info("%s\nThe sweep is in %s.", table, folder.path)


def open_sweep(folder: SweepFolder, sweep: Sweep) -> None:
    """Go on with the folder's sweep if it is this one; else make room for it, and write what is known beforehand."""
    recipe, fingerprints = sweep.recipe, sweep.fingerprints()
    sections = describe_run(folder, recipe.trials[0].flags, fingerprints)
    sections["model"] = _merge([asdict(trial.flags.model) for trial in recipe.trials])
    sections["training"] = _merge([trial.flags.training.to_plain_dict() for trial in recipe.trials])
    sections["training"]["output_dir"] = str(folder.path)
    sections["sweep"] = {**{name: list(values) for name, values in recipe.axes.items()}, "folds": recipe.num_folds}
    digest = hash_flags(sections, sections["sweep"], fingerprints)
    sections["environment"]["sweep_sha256"] = digest
    if folder.config_file.exists() and folder.load_arguments()["environment"].get("sweep_sha256") == digest:
        if damaged := folder.drop_damaged():
            numbers = ", ".join(map(str, damaged))
            logger.warning("Trained again, since files of theirs are damaged or gone: trials %s.", numbers)
        logger.info("Going on with the sweep in %s: %d trials are there.", folder.path, len(folder.finished()))
        return
    open_folder(folder, sections, sweep.splits, sweep.prepared.quarantine)
    sweep.prepared.quarantine.tell(folder.quarantine_file)


def wait_for_trials(folder: SweepFolder, recipe: SweepRecipe) -> None:
    """Until the trials of all ranks are there: a barrier alone gives up after --ddp_timeout.

    If a rank dies, its launcher ends the others.
    """
    while len(folder.finished() & {trial.number for trial in recipe.trials}) < len(recipe.trials):
        time.sleep(POLL_SECONDS)
    wait_for_everyone()


def _show_trials(folder: SweepFolder, recipe: SweepRecipe) -> None:
    """Give each trial a run in the trackers: once all are there, so that a sweep that was killed shows none twice."""
    for trial, record in zip(recipe.trials, folder.read_records(), strict=True):
        found = folder.read_predictions(record).best if record.error is None else None
        scores = {} if found is None else score_predictions(found.probabilities, found.labels, found.label_names)
        name = f"{folder.path.name}-{trial.number:04d}"
        show_result(trial.flags, folder.path, name, {"val": scores}, sweep=trial.values)


def _train_missing(folder: SweepFolder, sweep: Sweep) -> bool:
    """Train this rank's share of the trials that aren't finished; False where all were."""
    args, finished = sweep.recipe.trials[0].flags.training, folder.finished()
    missing = [trial for trial in sweep.recipe.trials if trial.number not in finished]
    wait_for_everyone()  # all have looked before the first writes
    if not missing:
        return False
    features = sweep.read_features(missing)
    share = missing[args.process_index :: args.world_size]
    light = [trial for trial in share if features[trial.fusion].are_light]
    train = partial(run_trial, sweep=sweep, features=features, folder=folder)
    is_shown = is_main_process() and not args.disable_tqdm
    bar: Any = progress(total=len(share), description="sweep", unit="trials", is_shown=is_shown)
    with bar:

        def finish(record: TrialRecord, predictions: TrialPredictions | None) -> None:
            folder.write_trial(record, predictions)
            if record.error is not None:
                bar.write(printable(f"trial {record.number} ({record.values}): {record.error}"))
            bar.update()

        train_side_by_side(light, train, finish)
        for trial in share:
            if trial not in light:
                finish(*train(trial, Event()))
    return True


def run_trial(
    trial: Trial, stop: Event, *, sweep: Sweep, features: Mapping[str, FeatureRows], folder: SweepFolder
) -> Outcome:
    """Train one head; without predictions where its loss or its answers aren't finite."""
    start, args, rows = time.perf_counter(), trial.flags.training, features[trial.fusion]
    train_rows, val_rows, held_out = sweep.parts[trial.fold or 0]
    model = sweep.build(trial)
    # With which train.py trains the same into a folder of its own: the later ones win.
    own = {"split_file": str(folder.split_file_of(trial.fold)), "bf16": args.bf16}
    own["output_dir"] = f"{folder.path}-{trial.number:04d}"
    record = TrialRecord(trial.number, dict(trial.values), [*trial.words, *to_flags(own)], seconds=0.0)
    try:
        best, last = train_head(model, rows, train_rows, val_rows, held_out, args=args, stop=stop)
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

    def tabulate(part: Tensor, probabilities: NDArray[np.float64]) -> PredictionTable:
        guids = tuple(sweep.guids[row] for row in part.tolist())
        return PredictionTable(guids, rows.labels[part].numpy(), probabilities, tuple(trial.flags.data.labels))

    judged = None if best.held_out is None else tabulate(held_out, best.held_out)
    first, final = (tabulate(val_rows, each.probabilities) for each in (best, last))
    return record, TrialPredictions(first, final, judged)


def _merge(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{name: value}, or a list of the values where the sections differ."""
    merged = {}
    for name, value in sections[0].items():
        values = [section[name] for section in sections]
        distinct = [value for number, value in enumerate(values) if value not in values[:number]]
        merged[name] = distinct if len(distinct) > 1 else value
    return merged
