"""A sweep's recipe: flags of train.py, and a section `sweep` with lists of values; each combination is a trial."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from transformers import IntervalStrategy, SchedulerType

from data_utils.sources.arguments import DataArguments
from modeling.errors import InputError
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments
from training.flags.own import LATEST
from training.flags.parsing import Flags, parse_arguments
from training.flags.recipe import SWEEP, find_recipe, join_words, read_axes, read_recipe, to_flags
from training.flags.rules import METRIC_SCHEDULES
from training.launch.console import quiet
from training.launch.ranks import uses_deepspeed, uses_fsdp

T = TypeVar("T")
# What the light loop of a sweep leaves out, beside checkpoints and logs.
LEFT_OUT = (
    *("dry_run", "max_steps", "early_stopping_patience", "fp16", "dataloader_drop_last", "eval_delay", "profile"),
    *("full_determinism", "train_sampling_strategy", "neftune_noise_alpha", "torch_compile", "push_to_hub"),
    "ema_decay",
)
NO_VALIDATION = (
    "A sweep compares heads on validation rows: raise --val_ratio, take a --split_file with some, or write folds: 5 "
    "under sweep."
)


@dataclass(frozen=True)
class Trial:
    """One training of one head.

    Attributes:
        number: from 0, in the order of the recipe.
        values: the swept flags as written, and the fold where there are folds.
        fold: None without folds.
        words: flags with which train.py trains the same, its split aside.
        flags: the same, parsed.
    """

    number: int
    values: Mapping[str, str]
    fold: int | None
    words: tuple[str, ...]
    flags: Flags

    @property
    def fusion(self) -> str:
        """Its head."""
        return str(self.flags.model.fusion)


class SweepRecipe(NamedTuple):
    """What a sweep is to do.

    Attributes:
        name: of the file.
        axes: the swept flags with their values as written, without those that the command line gives.
        num_folds: None: judged on the validation part.
        trials: every combination, the last flag first to change, and then the fold; all have the same data.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    num_folds: int | None
    trials: tuple[Trial, ...]


def read_sweep(argv: Sequence[str]) -> SweepRecipe | None:
    """The sweep that the command line asks for with `--sweep recipe.yaml`, all trials checked; else None."""
    starter, path, rest = find_recipe(argv)
    if starter != "--sweep":
        return None
    values = {name: value for name, value in read_recipe(path, SWEEP).items() if value is not None}
    axes, num_folds = read_axes(path, values.pop(SWEEP, None))
    axes, named = part_axes(path, SWEEP, axes, values, rest)
    if "seeds" in named:
        raise InputError(f"Got seeds, which a sweep takes in its section {SWEEP}: write `seed: [42, 43, 44]` there.")
    if "lora_rank" in named:
        raise InputError(
            "Got lora_rank, and a sweep, which trains heads over the cached output of frozen towers; leave it out, or "
            "train with adapters by train.py --config or --compare."
        )
    # Heads train with a tenfold --learning_rate only where nothing gives them a rate of their own.
    if "learning_rate" in axes and "head_learning_rate" in axes.keys() | named:
        raise InputError(
            f"{path} sweeps learning_rate, which only frozen towers would have: all heads would train with the "
            "--head_learning_rate that is given too; leave one of them out."
        )
    trials = _make_trials(["--freeze", "both", *join_words(values, rest)], axes, num_folds)
    if "report_to" not in named:  # thousands of trials are shown to no tracker by default
        trials = tuple(dataclasses.replace(trial, flags=without_trackers(trial.flags)) for trial in trials)
    _check_data(trials[0].flags.data, num_folds, named)
    return SweepRecipe(path.stem, axes, num_folds, trials)


def without_trackers(flags: Flags) -> Flags:
    """The same for a training that is shown to none."""
    return flags._replace(training=flags.training.replace(report_to=[]))


def part_axes(
    path: Path, section: str, axes: Mapping[str, T], values: Mapping[str, Any], rest: Sequence[str]
) -> tuple[dict[str, T], set[str]]:
    """The axes of a section without those that the command line `rest` gives, and the names of all fixed flags."""
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in rest if word.startswith("--")}
    for name in sorted(axes.keys() & values.keys()):
        raise InputError(f"{name} stands twice in {path}, also in its section {section}; leave one of them out.")
    if "folds" in given | values.keys():
        raise InputError(f"Got folds, which is taken from the section {section}: write `folds: 5` there.")
    return {name: axis for name, axis in axes.items() if name not in given}, given | values.keys()


def _make_trials(base: Sequence[str], axes: Mapping[str, tuple[str, ...]], num_folds: int | None) -> tuple[Trial, ...]:
    trials: list[Trial] = []
    for choices in itertools.product(*axes.values()):
        values = dict(zip(axes, choices, strict=True))
        words = (*base, *to_flags(values))
        with quiet(bool(trials)):
            flags = parse_arguments(words)
        check_supported(flags.model, flags.training)
        for fold in range(num_folds) if num_folds else [None]:
            named = values if fold is None else values | {"fold": str(fold)}
            trials.append(Trial(len(trials), named, fold, words, flags))
    return tuple(trials)


def check_supported(model: ModelArguments, training: SentimentTrainingArguments) -> None:
    """Refuse what a sweep can't do, rather than leave it out silently."""
    if model.from_scratch or model.model == "baseline":
        raise InputError(
            "A sweep trains heads over frozen towers, whose weights must not be random; use --model vilbert or clip "
            "without --from_scratch."
        )
    if model.freeze != "both" or model.unfreeze_last is not None or model.cache_features is False:
        raise InputError(
            "A sweep trains heads over frozen towers whose output is cached: leave --freeze, --unfreeze_last and "
            "--cache_features out, or train this one alone with train.py --config."
        )
    if uses_deepspeed() or uses_fsdp() or training.deepspeed:
        raise InputError(
            "In a sweep each process trains trials of its own, whole; launch it with accelerate_configs/multi_gpu.yaml."
        )
    defaults = {entry.name: entry.default for entry in dataclasses.fields(training)}
    schedule = SchedulerType(training.lr_scheduler_type).value
    left_out = {name: getattr(training, name) for name in LEFT_OUT if getattr(training, name) != defaults[name]}
    for name, value in (left_out | {"lr_scheduler_type": schedule in METRIC_SCHEDULES and schedule}).items():
        if value:
            raise InputError(f"Got --{name} {value}, which a sweep can't do; leave it out.")
    if training.resume_from_checkpoint not in (None, LATEST):
        raise InputError(
            f"Got --resume_from_checkpoint {training.resume_from_checkpoint}; a sweep has no checkpoints and goes on "
            "with the trials that are missing, by itself."
        )
    strategy = IntervalStrategy(training.eval_strategy)
    if strategy != IntervalStrategy.EPOCH or training.num_train_epochs % 1:
        raise InputError(
            f"Got --eval_strategy {strategy.value} and --num_train_epochs {training.num_train_epochs}; a "
            "sweep evaluates after every epoch, and trains whole ones."
        )


def _check_data(data: DataArguments, num_folds: int | None, named: set[str]) -> None:
    data.refuse_tasks("a sweep")
    if data.streaming:
        raise InputError("Got --streaming, which has no rows to train heads on many times; leave it out of a sweep.")
    if num_folds is None and data.val_ratio == 0 and data.split_file is None:
        raise InputError(NO_VALIDATION)
    unused = sorted(named & {"val_ratio", "split_file", "max_eval_samples"})
    if num_folds is not None and unused:
        raise InputError(f"Got --{unused[0]} and folds, which judge every row once; leave one of them out.")
