"""Recipes: YAML files of flags, read as words of a command line; nothing heavy is imported."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from data_utils.console.command_line import Flag, FlagParser, list_flags
from data_utils.sources.arguments import DataArguments
from data_utils.system.bounded import parse_yaml, read_bounded
from modeling.errors import InputError, check_choice
from training.flags.model import ModelArguments
from training.flags.of_trainer import read_trainer_flags
from training.flags.own import EvaluationFlags, OutputFlags, TrainingFlags

# Sections that make a recipe one of many trainings, and the flags that start them.
SECTIONS = {"sweep": "--sweep", "runs": "--compare", "tune": "--tune"}
GROUPS = (ModelArguments, DataArguments, TrainingFlags, EvaluationFlags, OutputFlags)
MAX_RECIPE = 2**17  # bytes, which take a second or two to parse
# Of the sections, checked before anything heavy is imported.
SWEEP, FOLDS, RUNS, TUNE = "sweep", "folds", "runs", "tune"
MAX_TRIALS = 10_000
MAX_RUNS = 1_000
# Flags that change neither the towers nor the rows.
SWEPT = (
    *("fusion", "seed", "learning_rate", "head_learning_rate", "weight_decay", "class_weights", "logit_adjustment"),
    *("modality_dropout", "unimodal_loss_weight", "fusion_dropout", "per_device_train_batch_size", "num_train_epochs"),
    *("label_smoothing_factor", "lr_scheduler_type", "warmup_steps"),
)
# What is written beside the run folders.
RESULT_FILES = ("comparison.md", "comparison.csv", "comparison.json", "comparison.png", "pairs.csv", "report.html")
# What belongs to the whole recipe, or to the command line.
_NOT_IN_A_RUN = ("output_dir", "config", "sweep", "compare", RUNS, TUNE)
_REPLACES = {"data": ("data_dir", "train_file"), "data_dir": ("data",)}
_NAME = re.compile(r"\w[\w.-]{0,99}")
_KINDS = {list: "a list", dict: "a map", float: "a number"}
_FLAG_LIKE = re.compile("-.*[A-Za-z]")


@cache
def trainer_flags() -> tuple[Flag, ...]:
    """Trainer's flags without those that stand in our groups."""
    return tuple(read_trainer_flags(without={flag.name for group in GROUPS for flag in list_flags(group)}))


@cache
def all_flags() -> dict[str, Flag]:
    """Every flag of a training, by its name."""
    return {flag.name: flag for flags in (*map(list_flags, GROUPS), trainer_flags()) for flag in flags}


def find_recipe(argv: Sequence[str]) -> tuple[str, Path, list[str]]:
    """Flag and path of the one recipe that the command line names (empty without one), and its other words."""
    finder = FlagParser(add_help=False)
    for name in ("config", "sweep", "compare", "tune"):
        finder.add_argument(f"--{name}", action="append", default=[])
    finder.add_argument("--trials")  # a number, which `read_trials` reads
    known, rest = finder.parse_known_args(argv)
    trials = vars(known).pop("trials", None)
    found = [(f"--{name}", path) for name, paths in vars(known).items() for path in paths]
    if len(found) > 1:
        given = " and ".join(f"{flag} {path}" for flag, path in found)
        raise InputError(f"Got {given}, of which one can be had at a time; a recipe holds all flags.")
    if trials is not None and not known.tune:
        raise InputError(f"Got --trials {trials}, which is for --tune; leave it out.")
    return (found[0][0], Path(found[0][1]), rest) if found else ("", Path(), rest)


def read_recipe(path: Path, section: str | None = None) -> dict[str, Any]:
    """{flag: value} of a YAML file, which may hold this one of `SECTIONS`.

    Raises:
        InputError: it can't be read, a key stands twice, it holds another section, or names another recipe.
    """
    try:
        values = parse_yaml(read_bounded(path, MAX_RECIPE).decode("utf-8"))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"Can't read the recipe {path}: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The recipe {path} is no mapping; write one `flag: value` a line, without dashes before it.")
    values = spell_flags(path, values)
    for name in ("config", "compare"):
        if name in values:
            raise InputError(f"The recipe {path} names another recipe ({name}); a recipe holds flags only.")
    found = [name for name in SECTIONS if values.get(name) is not None]
    if len(found) > 1:
        raise InputError(f"The recipe {path} has the sections {' and '.join(found)}; part them into two files.")
    if found and found[0] != section:
        used = SECTIONS[section] if section else "--config"
        raise InputError(f"The recipe {path} has a section {found[0]}; start it with {SECTIONS[found[0]]}, not {used}.")
    return values


def spell_flags(path: Path, values: Mapping[Any, Any]) -> dict[str, Any]:
    """The same with underscores in the names, which may be written with dashes as on the command line.

    Raises:
        InputError: both spellings of a flag are there, or foreign code is trusted: a recipe may come from anywhere.
    """
    spelled: dict[str, Any] = {}
    for name, value in values.items():
        flag = str(name).removeprefix("--").replace("-", "_")
        if flag in spelled:
            raise InputError(f"{flag} stands twice in the recipe {path}, in two spellings; leave one of them out.")
        if flag == "trust_remote_code" and value is not False:
            raise InputError(f"The recipe {path} has {flag}; it is given on the command line alone, as --{flag}.")
        spelled[flag] = value
    return spelled


def join_words(values: Mapping[str, Any], rest: Sequence[str]) -> list[str]:
    """The flags {flag: value} of a recipe as words, and after them the command line's own, which win.

    Data that the command line names take the place of the recipe's, also where these are given in the other way.
    """
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in rest}
    replaced = {name for flag, names in _REPLACES.items() if flag in given for name in names}
    return [*to_flags({name: value for name, value in values.items() if name not in replaced}), *rest]


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """{flag: value} of a recipe as words, see `write_words`; a flag without a value is left out."""
    flags: list[str] = []
    for name, value in values.items():
        if value is not None:
            words = write_words(name, value)
            # A word that looks like a flag would be taken for one.
            flags += [f"--{name}={words[0]}"] if _FLAG_LIKE.match("".join(words[:1])) else [f"--{name}", *words]
    return flags


def write_words(name: str, value: Any) -> list[str]:
    """The value of a flag in a recipe as words of a command line.

    Raises:
        InputError: it is none that the flag could take, as a word that YAML takes for a switch, a date or a list.
    """
    kind = all_flags()[name].kind if name in all_flags() else None  # an unknown flag is told later
    kinds = {get_origin(each) or each for each in (kind, *get_args(kind))}
    is_list = isinstance(value, list) and list in kinds
    try:
        if isinstance(value, dict) and dict in kinds:
            if any(not isinstance(key, str) for key in value):
                raise TypeError("its keys must be words")
            return [json.dumps(value, allow_nan=False)]
        for item in value if is_list else [value]:
            if isinstance(item, bool) and (is_list or bool not in kinds):
                raise TypeError(f"YAML reads the bare word {'yes' if item else 'no'} as a switch")
            if not isinstance(item, str | int | float) or (is_list and isinstance(item, float)):
                raise TypeError(f"YAML reads {_KINDS.get(type(item), f'a {type(item).__name__}')}")
        return [str(item) for item in (value if is_list else [value])]
    except (TypeError, ValueError) as error:  # a number may have more digits than Python writes
        raise InputError(
            f"Got {name}: {_show(value)} in the recipe, which --{name} can't take ({error}); write words and numbers, "
            "in quotes where YAML would read something else, such as yes, no, 1.0 or a date."
        ) from error


def _show(value: object) -> str:
    try:
        return str(value)[:200]
    except ValueError:
        return "a number of thousands of digits"


def read_axes(path: Path, section: object) -> tuple[dict[str, tuple[str, ...]], int | None]:
    """The swept flags with their values as words, and the number of folds; `InputError` for too many trials."""
    if not isinstance(section, dict) or not section:
        raise InputError(f"The recipe {path} has no section `{SWEEP}` with lines like `fusion: [early, late]`.")
    axes, num_folds = {}, None
    for name, choices in spell_flags(path, section).items():
        check_choice(f"in the section {SWEEP} of {path} the key", name, (*SWEPT, FOLDS))
        if name == FOLDS:
            num_folds = read_folds(path, choices)
        else:
            axes[name] = tuple(word for words in read_choices(path, SWEEP, name, choices) for word in words)
    num_trials = math.prod(map(len, axes.values())) * (num_folds or 1)
    if num_trials > MAX_TRIALS:
        raise InputError(f"The section {SWEEP} of {path} makes {num_trials:,} trials; at most {MAX_TRIALS:,} are made.")
    return axes, num_folds


def read_folds(path: Path, value: object) -> int:
    """The number of folds in a section."""
    if type(value) is not int or value < 2:
        raise InputError(f"Got {FOLDS}: {value!r} in {path}; it takes a whole number of at least 2.")
    return value


def read_choices(path: Path, section: str, name: str, choices: object) -> tuple[tuple[str, ...], ...]:
    """The words of each of several values of a flag."""
    is_switch = name in all_flags() and bool in (all_flags()[name].kind, *get_args(all_flags()[name].kind))
    listed = choices if isinstance(choices, list) else []
    if any(isinstance(each, bool) for each in listed) and not is_switch:
        listed = []
    found = tuple(tuple(write_words(name, choice)) for choice in listed)
    if not all(found) or not found or len({tuple(map(_as_number, words)) for words in found}) < len(found):
        raise InputError(
            f"Got {name}: {choices} in the section {section} of {path}; it takes a list of words or numbers, each of "
            f"them once and words like yes in quotes, like {name}: [...]."
        )
    return found


def _as_number(word: str) -> str | float:
    """What tells two values apart: 0, 0.0 and 0e1 are one number, of which YAML reads the last as a word."""
    try:
        return float(word)
    except ValueError:
        return word


def read_runs(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The flags {flag: value} that the runs of a recipe share, and those of each run by its name."""
    shared = read_recipe(path, RUNS)
    runs = shared.pop(RUNS, None)
    if not isinstance(runs, dict) or not 2 <= len(runs) <= MAX_RUNS:
        raise InputError(
            f"The recipe {path} has no section `{RUNS}` of 2 to {MAX_RUNS:,} runs, as `a: {{fusion: early}}`."
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
