"""The sections of recipes for many trainings, `sweep` and `runs`, checked before anything heavy is imported."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from modeling.errors import InputError, check_choice
from training.flags.recipe import read_recipe, spell_flags, write_words

SWEEP, FOLDS, RUNS = "sweep", "folds", "runs"
MAX_TRIALS = 10_000
MAX_RUNS = 1_000
# Flags that change neither the towers nor the rows.
SWEPT = (
    *("fusion", "seed", "learning_rate", "head_learning_rate", "weight_decay", "class_weights", "logit_adjustment"),
    *("modality_dropout", "unimodal_loss_weight", "fusion_dropout", "per_device_train_batch_size", "num_train_epochs"),
    *("label_smoothing_factor", "lr_scheduler_type", "warmup_steps"),
)
# What is written beside the run folders.
RESULT_FILES = ("comparison.md", "comparison.csv", "comparison.json", "comparison.png", "pairs.csv")
# What belongs to the whole recipe, or to the command line.
_NOT_IN_A_RUN = ("output_dir", "config", "sweep", "compare", RUNS)
_NAME = re.compile(r"\w[\w.-]{0,99}")


def read_axes(path: Path, section: object) -> tuple[dict[str, tuple[str, ...]], int | None]:
    """The swept flags with their values as words, and the number of folds.

    Raises:
        InputError: the section can't be read, or would make too many trials.
    """
    if not isinstance(section, dict) or not section:
        raise InputError(
            f"The recipe {path} has no section `{SWEEP}`; write {SWEEP}: and below it lines like "
            "`fusion: [early, late]`, or train it once with --config."
        )
    axes, num_folds = {}, None
    for name, choices in spell_flags(path, section).items():
        check_choice(f"in the section {SWEEP} of {path} the key", name, (*SWEPT, FOLDS))
        if name == FOLDS:
            if type(choices) is not int or choices < 2:
                raise InputError(f"Got {FOLDS}: {choices!r} in {path}; it takes a whole number of at least 2.")
            num_folds = choices
        else:
            axes[name] = _read_choices(path, name, choices)
    num_trials = math.prod(map(len, axes.values())) * (num_folds or 1)
    if num_trials > MAX_TRIALS:
        raise InputError(
            f"The section {SWEEP} of {path} makes {num_trials:,} trials; at most {MAX_TRIALS:,} are made: sweep fewer "
            "values or flags at a time."
        )
    return axes, num_folds


def _read_choices(path: Path, name: str, choices: object) -> tuple[str, ...]:
    found = choices if isinstance(choices, list) and not any(isinstance(each, bool) for each in choices) else []
    words = [word for choice in found for word in write_words(name, choice)]
    if not words or len({_as_number(word) for word in words}) < len(words):
        raise InputError(
            f"Got {name}: {choices} in the section {SWEEP} of {path}; it takes a list of words or numbers, each of "
            f"them once and words like yes in quotes, like {name}: [...]."
        )
    return tuple(words)


def _as_number(word: str) -> str | float:
    """What tells two values apart: 0, 0.0 and 0e1 are one number, of which YAML reads the last as a word."""
    try:
        return float(word)
    except ValueError:
        return word


def read_runs(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The flags {flag: value} that the runs of a recipe share, and those of each run by its name.

    Raises:
        InputError: it can't be read, or its section isn't two runs or more, by names that folders can have.
    """
    shared = read_recipe(path, RUNS)
    runs = shared.pop(RUNS, None)
    if not isinstance(runs, dict) or not 2 <= len(runs) <= MAX_RUNS:
        raise InputError(
            f"The recipe {path} has no section `{RUNS}` with 2 to {MAX_RUNS:,} runs; write {RUNS}: and below it lines "
            "like `small: {fusion: early}`."
        )
    spelled = {}
    for name, own in runs.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESULT_FILES:
            raise InputError(
                f"Got {name!r} as the name of a run in {path}; a name is a word of at most 100 letters, digits, dots "
                "and dashes, none of a file of the results, in quotes where YAML would read something else."
            )
        if own is not None and not isinstance(own, dict):
            raise InputError(f"The run {name} in {path} is {own!r}; write its flags, like `{name}: {{fusion: early}}`.")
        spelled[name] = spell_flags(path, own or {})
        for key in _NOT_IN_A_RUN:
            if key in spelled[name]:
                raise InputError(f"The run {name} in {path} has {key}, which a run can't choose; leave it out.")
    return shared, spelled
