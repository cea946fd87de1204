"""The searches of a tuning whose trials are heads over cached features: each thread and rank has its own searches."""

from __future__ import annotations

from functools import partial
from threading import Event, Lock
from typing import Any

from data_utils.console.progress import progress
from data_utils.splits.split_file import Split
from run_files.tuning_folder import TuningFolder
from training.experiments.search import Attempt, conduct
from training.experiments.tuning_recipe import TuneRecipe
from training.flags.parsing import Flags
from training.heads.side_by_side import train_side_by_side
from training.heads.sweep import Sweep, run_trial
from training.heads.sweep_recipe import SweepRecipe, Trial
from training.launch.ranks import is_main_process


def search_heads(folder: TuningFolder, recipe: TuneRecipe, splits: list[Split], share: list[int]) -> None:
    """This rank's share of the searches, over what frozen towers gave for all rows."""
    heads = [recipe.parse({"fusion": name}) for name in recipe.heads]
    trials = tuple(Trial(number, {}, None, (), flags) for number, flags in enumerate(heads))
    sweep = Sweep(SweepRecipe(recipe.name, {}, None, trials), splits)
    sweep.choose_precision()
    features = sweep.read_features(sweep.recipe.trials)
    settled, args = sweep.recipe.trials[0].flags.training, recipe.flags.training
    total, is_shown = len(share) * (recipe.num_trials + 1), is_main_process() and not args.disable_tqdm
    updating = Lock()
    bar: Any = progress(total=total, description="tuning", unit="trainings", is_shown=is_shown)

    def attempt(flags: Flags, split: int, *_: Any, stop: Event) -> Attempt:
        own = flags.training.replace(bf16=settled.bf16, mixed_precision=settled.mixed_precision)
        trial = Trial(0, {}, split, (), flags._replace(training=own))
        record, found = run_trial(trial, stop, sweep=sweep, features=features, folder=folder)
        with updating:
            bar.update()
        remarks = {"seconds": round(record.seconds, 2), "best_epoch": record.best_epoch}
        if record.metrics is None or found is None:
            return Attempt(None, remarks | {"error": record.error})
        value = record.metrics[recipe.metric]
        return Attempt(value, remarks | record.metrics, inner=found.best, outer=found.held_out)

    def search(number: int, stop: Event) -> tuple[()]:
        conduct(number, folder, recipe, partial(attempt, stop=stop))
        return ()

    with bar:
        if all(rows.are_light for rows in features.values()):
            train_side_by_side(share, search, lambda: None)
        else:
            for number in share:
                search(number, Event())
