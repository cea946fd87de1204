"""The searches of a tuning whose trials train towers: each trial is a training by all ranks together."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl

from data_utils.system.files import remove
from run_files.predictions_csv import read_predictions_csv
from run_files.run_folder import RunFolder
from run_files.tuning_folder import TuningFolder
from training.engine.trainer import NonFiniteLossError
from training.experiments.search import Attempt, Prunes, conduct
from training.experiments.training import train
from training.experiments.tuning_recipe import TuneRecipe
from training.flags.parsing import Flags
from training.launch.checks import wait_for_everyone
from training.launch.console import quiet
from training.launch.ranks import is_main_process
from training.runs.run import note_interruption

logger = logging.getLogger(__name__)
T = TypeVar("T")


def search_trainings(folder: TuningFolder, recipe: TuneRecipe, missing: list[int]) -> None:
    """These searches, each trial a training by all ranks together, of which no model is kept."""

    def attempt(flags: Flags, split: int, name: str, prunes: Prunes | None) -> Attempt:
        run = RunFolder(folder.path / "members" / name)
        data = replace(flags.data, split_file=str(folder.fold_split_file(split)), overwrite_cache=False)
        names = {"output_dir": str(run.path), "run_name": f"{folder.path.name}-{name}"}
        args = flags.training.replace(**names, resume_from_checkpoint=None, no_report=True)
        with note_interruption(folder, args):
            made = _train_alone(Flags(flags.model, data, args), run, prunes, recipe.metric)
        if is_main_process():
            logger.info("%s: %s %s", name, recipe.metric, "none" if made.value is None else f"{made.value:.3f}")
        return made

    for number in missing:
        conduct(number, folder, recipe, attempt, share=_on_main_rank)


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


def _on_main_rank(work: Callable[[], T]) -> T:
    """What the main rank finds, told to all."""
    found: list[Any] = [work() if is_main_process() else None]
    broadcast_object_list(found)
    return found[0]
