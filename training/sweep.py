"""`train.py --sweep recipe.yaml`: many heads over one pass of the frozen towers, in one process or dealt to several."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm
from transformers import set_seed

from data_utils.errors import InputError
from data_utils.splits import save_split
from evaluation.sweep_folder import SweepFolder
from evaluation.sweep_summary import Predictions, TrialRecord
from modeling import SentimentClassifier, parameter_table
from modeling.arguments import ModelArguments
from modeling.fusion import get_fusion_head
from modeling.plan import ModelPlan, plan_model
from training.launch import check_same_everywhere, is_main_process, shares_files
from training.parsing import to_flags
from training.probe import FeatureRows, train_head
from training.run import choose_run, describe_environment, lock_run, move_aside
from training.sweep_data import SweepData, build_head, prepare_sweep, read_features
from training.sweep_recipe import SweepRecipe, Trial, quiet
from training.trainer import NonFiniteLossError

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0
# Flags that change no figure: a sweep goes on under others.
NEUTRAL = (
    "output_dir",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "local_rank",
    "use_cpu",
    "ddp_backend",
    "ddp_timeout",
    "dataloader_num_workers",
)


def run_sweep(recipe: SweepRecipe) -> None:
    """Train all trials of the recipe that aren't finished yet, and write the tables.

    Raises:
        InputError: data, towers or folder can't be used; it says why.
    """
    first = recipe.trials[0]
    args = first.training
    args.output_dir = args.output_dir or f"runs/sweep-{recipe.name}"
    run = choose_run(first.model, args)
    if not shares_files(run.path):
        raise InputError(f"The machines of a sweep must see the same files; {run.path} is not shared.")
    with lock_run(run):
        plan = plan_model(
            first.model,
            image_size=recipe.data.image_size,
            image_resize_mode=recipe.data.image_resize_mode,
            max_length=recipe.data.max_length,
        )
        data = prepare_sweep(recipe, plan)
        check_same_everywhere(data.fingerprints())
        _choose_precision(recipe, data, plan)
        folder = SweepFolder(run.path, recipe.data.labels)
        if is_main_process():
            open_sweep(folder, recipe, data)
        wait_for_everyone()
        _train_missing(folder, recipe, data, plan)
        wait_for_trials(folder, recipe)
        if is_main_process():
            table = folder.write_summary(args.metric_for_best_model)
            logger.info("%s\nThe sweep is in %s.", table, folder.path)


def open_sweep(folder: SweepFolder, recipe: SweepRecipe, data: SweepData) -> None:
    """Go on with the folder's sweep if it is this one; else make room for it, and write what is known beforehand."""
    sections = {
        "model": _merge([asdict(trial.model) for trial in recipe.trials]),
        "data": asdict(recipe.data) | {"data_dir": recipe.data.resolved_dir()},
        "training": _merge([trial.training.to_plain_dict() for trial in recipe.trials])
        | {"output_dir": str(folder.path)},
        "environment": describe_environment(recipe.trials[0].training) | data.fingerprints(),
        "sweep": {**{name: list(values) for name, values in recipe.axes.items()}, "folds": recipe.num_folds},
    }
    sections["environment"]["sweep_sha256"] = _hash_sweep(sections, data)
    if folder.config_file.exists():
        if folder.load_arguments()["environment"].get("sweep_sha256") == sections["environment"]["sweep_sha256"]:
            logger.info("Going on with the sweep in %s: %d trials are there.", folder.path, len(folder.finished()))
            return
        move_aside(folder.path)
        folder.path.mkdir()
    for number, split in enumerate(data.splits):
        save_split(split, folder.split_file_of(None if recipe.num_folds is None else number))
    data.prepared.ledger.write_csv(folder.quarantine_file)
    folder.save_arguments(sections)  # last: where it stands, the next start goes on and writes none of these
    summary = data.prepared.ledger.summary()
    if summary:
        logger.info("%s\nEach is a row of %s.", summary, folder.quarantine_file)


def wait_for_everyone() -> None:
    """Until all ranks are here."""
    PartialState().wait_for_everyone()


def wait_for_trials(folder: SweepFolder, recipe: SweepRecipe) -> None:
    """Until the trials of all ranks are there.

    A barrier alone gives up after --ddp_timeout, and a rank may have one trial less than another. If a rank dies, its
    launcher ends the others.
    """
    numbers = {trial.number for trial in recipe.trials}
    while numbers - folder.finished():
        time.sleep(POLL_SECONDS)
    wait_for_everyone()


def _choose_precision(recipe: SweepRecipe, data: SweepData, plan: ModelPlan) -> None:
    """One precision for all trials, that of a model with as many towers as any of them has."""

    def rank(model: ModelArguments) -> tuple[int, str]:
        head = get_fusion_head(model.fusion)
        return head.uses_text + head.uses_image, model.fusion  # the name, or the order of the list would decide

    model = build_head(max((trial.model for trial in recipe.trials), key=rank), plan, recipe, data)
    for trial in recipe.trials:
        with quiet(trial.number > 0):
            trial.training.choose_precision_for(model)


def _train_missing(folder: SweepFolder, recipe: SweepRecipe, data: SweepData, plan: ModelPlan) -> None:
    """Train this rank's share of the trials that aren't finished."""
    args = recipe.trials[0].training
    finished = folder.finished()
    missing = [trial for trial in recipe.trials if trial.number not in finished]
    wait_for_everyone()  # all have looked before the first writes
    if not missing:
        return
    features = read_features(data, plan, recipe, missing)
    heads = _Heads(recipe, data, plan)
    # Trials that start from the same weights come after each other.
    share = sorted(missing, key=heads.key)[args.process_index :: args.world_size]
    is_silent = args.disable_tqdm or not is_main_process()
    for trial in (bar := tqdm(share, desc="trials", disable=is_silent)):
        bar.set_postfix_str(" ".join(trial.values.values()))
        record, predictions = _run_trial(trial, heads, features[trial.model.fusion], data, folder)
        folder.write_trial(record, predictions)
        if record.error is not None:
            tqdm.write(f"trial {trial.number} ({trial.values}): {record.error}")


def _run_trial(
    trial: Trial, heads: _Heads, rows: FeatureRows, data: SweepData, folder: SweepFolder
) -> tuple[TrialRecord, Predictions | None]:
    start = time.perf_counter()
    train_rows, val_rows = data.parts[trial.fold or 0]
    model = heads.build(trial)
    common = {"number": trial.number, "values": dict(trial.values), "flags": _complete_flags(trial, folder)}
    try:
        best, last = train_head(model, rows, train_rows, val_rows, labels=data.labels, args=trial.training)
    except NonFiniteLossError as error:
        return TrialRecord(**common, seconds=time.perf_counter() - start, error=str(error)), None
    record = TrialRecord(
        **common,
        seconds=time.perf_counter() - start,
        best_epoch=best.epoch,
        metrics=dict(best.metrics),
        last_metrics=dict(last.metrics),
        parameters=dict(parameter_table(model)),
    )
    numbers = val_rows.tolist()
    guids, labels = tuple(data.guids[row] for row in numbers), np.array([data.labels[row] for row in numbers])
    return record, Predictions(guids, labels, best.probabilities, last.probabilities)


def _complete_flags(trial: Trial, folder: SweepFolder) -> list[str]:
    """With which train.py trains the same into a folder of its own: the later ones win."""
    own = {
        "split_file": folder.split_file_of(trial.fold),
        "bf16": trial.training.bf16,
        "output_dir": f"{folder.path}-{trial.number:04d}",
    }
    return [*trial.flags, *to_flags(own)]


class _Heads:
    """Models with the initial weights that train.py gives them; their towers don't run any more."""

    def __init__(self, recipe: SweepRecipe, data: SweepData, plan: ModelPlan) -> None:
        self._recipe, self._data, self._plan = recipe, data, plan
        self._key: tuple[str, float, int] | None = None
        self._model: SentimentClassifier | None = None
        self._initial: dict[str, Tensor] = {}

    @staticmethod
    def key(trial: Trial) -> tuple[str, float, int]:
        """Trials with equal keys start from the same model."""
        return trial.model.fusion, trial.model.fusion_dropout, trial.training.seed

    def build(self, trial: Trial) -> SentimentClassifier:
        """The trial's model before training; the one that was built before isn't to be used any more."""
        if self._key != self.key(trial):
            set_seed(trial.training.seed)
            self._model = build_head(trial.model, self._plan, self._recipe, self._data)
            trained = (pair for pair in self._model.named_parameters() if pair[1].requires_grad)
            self._initial = {name: parameter.detach().clone() for name, parameter in trained}
            self._key = self.key(trial)
        self._model.load_state_dict(self._initial, strict=False)
        return self._model


def _merge(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{name: value}, or a list of the values where the sections differ."""
    merged = {}
    for name in sections[0]:
        values = [section[name] for section in sections]
        distinct = [value for number, value in enumerate(values) if value not in values[:number]]
        merged[name] = distinct if len(distinct) > 1 else distinct[0]
    return merged


def _hash_sweep(sections: dict[str, dict[str, Any]], data: SweepData) -> str:
    """Of all that decides the figures."""
    training = {name: value for name, value in sections["training"].items() if name not in NEUTRAL}
    content = [sections["model"], training, sections["sweep"], data.fingerprints()]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
