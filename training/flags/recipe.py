"""Recipes: YAML files of flags, read as words of a command line; nothing heavy is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from data_utils.console.command_line import Flag, FlagParser, list_flags
from data_utils.sources.arguments import DataArguments
from data_utils.system.bounded import parse_yaml, read_bounded
from modeling.errors import InputError
from training.flags.model import ModelArguments
from training.flags.of_trainer import read_trainer_flags
from training.flags.own import EvaluationFlags, OutputFlags, TrainingFlags

# Sections that make a recipe one of many trainings, and the flags that start them.
SECTIONS = {"sweep": "--sweep", "runs": "--compare"}
GROUPS = (ModelArguments, DataArguments, TrainingFlags, EvaluationFlags, OutputFlags)
MAX_RECIPE = 2**17  # bytes, which take a second or two to parse
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
    """The flag and the path of the recipe that the command line names (empty without one), and its other words.

    Raises:
        InputError: it names more than one.
    """
    finder = FlagParser(add_help=False)
    for name in ("config", "sweep", "compare"):
        finder.add_argument(f"--{name}", action="append", default=[])
    known, rest = finder.parse_known_args(argv)
    found = [(f"--{name}", path) for name, paths in vars(known).items() for path in paths]
    if len(found) > 1:
        given = " and ".join(f"{flag} {path}" for flag, path in found)
        raise InputError(f"Got {given}, of which one can be had at a time; a recipe holds all flags.")
    return (found[0][0], Path(found[0][1]), rest) if found else ("", Path(), rest)


def read_recipe(path: Path, section: str | None = None) -> dict[str, Any]:
    """{flag: value} of a YAML file, which may hold this one of `SECTIONS`.

    Raises:
        InputError: it can't be read, a key stands twice, it holds another section, it names another recipe, or it is
            the config.yaml of a run.
    """
    try:
        values = parse_yaml(read_bounded(path, MAX_RECIPE).decode("utf-8"))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"Can't read the recipe {path}: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The recipe {path} is no mapping; write one `flag: value` a line, without dashes before it.")
    if all(isinstance(values.get(part), dict) for part in ("model", "data", "training")):
        raise InputError(
            f"The recipe {path} is the record of a run, with all that was settled on its machine; copy the lines that "
            "you want, of its sections model, data and training, into a file of their own."
        )
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
            raise InputError(
                f"The recipe {path} has {flag}, which is given on the command line alone; take it out and, if you have "
                f"read that code and trust it, add --{flag}."
            )
        spelled[flag] = value
    return spelled


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """{flag: value} of a recipe as command-line words; a flag without a value is left out.

    Raises:
        InputError: a flag couldn't take its value.
    """
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
