"""The command line: a recipe first (--config), flags over it, one clear sentence for what doesn't fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from data_utils.arguments import DataArguments
from data_utils.bounded import MAX_DOCUMENT, parse_yaml, read_bounded
from data_utils.command_line import FlagParser
from data_utils.errors import InputError
from modeling.arguments import ModelArguments
from training.arguments import SentimentTrainingArguments

# Sections that make a recipe one of many trainings, and the flags that start them.
SECTIONS = {"sweep": "--sweep", "runs": "--compare"}
_RECIPE_FLAGS = ("--config", "--sweep", "--compare")
_GROUPS = (ModelArguments, DataArguments, SentimentTrainingArguments)


def parse_arguments(
    argv: Sequence[str], *, description: str = "Train a classifier."
) -> tuple[ModelArguments, DataArguments, SentimentTrainingArguments]:
    """Parse flags, after those of the YAML file that `--config` names.

    Args:
        argv: the command line.
        description: what --help says of the command.

    Raises:
        InputError: an unknown flag (with the nearest known one), or a value that isn't allowed.
    """
    parser = FlagParser(_GROUPS, description=description, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file of flags (a recipe); flags on the command line win over it.")
    parser.add_argument(
        "--sweep",
        help="Recipe with lists of values in a section `sweep`: train a head over frozen towers for each combination.",
    )
    parser.add_argument(
        "--compare", help="Recipe with a section `runs` of {name: {flag: value}}: train them all, and compare them."
    )
    starter, path, flags = find_recipe(argv)
    if starter == "--config":
        flags = [*to_flags(read_recipe(path)), *flags]
    elif starter is not None:
        raise InputError(f"Got {starter} {path}, which train.py takes; here the flags are those of one training.")
    try:
        model, data, training, _ = parser.parse(flags)
        data.refuse_unused()
    except InputError:
        raise
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(str(error)) from error
    if training.head_learning_rate is None:
        factor = 1 if model.from_scratch or model.model == "baseline" else 10
        training.head_learning_rate = factor * training.learning_rate
    return model, data, training


def find_recipe(argv: Sequence[str]) -> tuple[str | None, Path | None, list[str]]:
    """The recipe that the command line names.

    Returns:
        `--config`, `--sweep` or `--compare`, the recipe's path, and the other words; without a recipe None twice.

    Raises:
        InputError: it names more than one.
    """
    finder = FlagParser((), add_help=False, allow_abbrev=False)
    for flag in _RECIPE_FLAGS:
        finder.add_argument(flag, action="append", default=[])
    known, rest = finder.parse_known_args(argv)
    found = [(flag, path) for flag in _RECIPE_FLAGS for path in getattr(known, flag.removeprefix("--"))]
    if len(found) > 1:
        raise InputError(
            f"Got {' and '.join(f'{flag} {path}' for flag, path in found)}, of which one can be had at a time; a "
            "recipe holds all flags: leave out the other."
        )
    return (found[0][0], Path(found[0][1]), rest) if found else (None, None, rest)


def read_recipe(path: Path, section: str | None = None) -> dict[str, Any]:
    """{flag: value} of a YAML file.

    Args:
        path: of the file.
        section: the one of `SECTIONS` that it may hold.

    Raises:
        InputError: it can't be read, a key stands twice, it holds another section, or it names another recipe.
    """
    try:
        values = parse_yaml(read_bounded(path, MAX_DOCUMENT).decode("utf-8"))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"Can't read the recipe {path}: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(
            f"The recipe {path} is no mapping; write one `flag: value` a line, without dashes before flag."
        )
    values = spell_flags(path, values)
    for name in ("config", "compare"):
        if name in values:
            raise InputError(f"The recipe {path} names another recipe ({name}); a recipe holds flags only.")
    _check_sections(path, [name for name in SECTIONS if values.get(name) is not None], section)
    return values


def spell_flags(path: Path, values: Mapping[Any, Any]) -> dict[str, Any]:
    """The same with underscores in the names, which may be written with dashes as on the command line.

    Raises:
        InputError: both spellings of a flag are there.
    """
    spelled: dict[str, Any] = {}
    for name, value in values.items():
        flag = str(name).removeprefix("--").replace("-", "_")
        if flag in spelled:
            raise InputError(f"{flag} stands twice in the recipe {path}, in two spellings; leave one of them out.")
        spelled[flag] = value
    return spelled


def _check_sections(path: Path, found: Sequence[str], section: str | None) -> None:
    if len(found) > 1:
        raise InputError(f"The recipe {path} has the sections {' and '.join(found)}; part them into two files.")
    if found and found[0] != section:
        used = "--config" if section is None else SECTIONS[section]
        raise InputError(
            f"The recipe {path} has a section {found[0]}; start it with {SECTIONS[found[0]]} in place of {used}."
        )


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """{flag: value} as command-line words; a flag without a value is left out.

    Raises:
        InputError: a value is written as what YAML takes for a switch.
    """
    flags: list[str] = []
    for name, value in values.items():
        if value is not None:
            flags += [f"--{name}", *_words(name, value)]
    return flags


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool) and name in _flags_of_words():
        word = "yes" if value else "no"
        raise InputError(
            f"Got {name}: {value} in the recipe, as which YAML reads the bare word {word}; {name} is no switch: if "
            f'you mean the word, write it in quotes ("{word}").'
        )
    if isinstance(value, dict):
        return [json.dumps(value)]
    if isinstance(value, list):
        if any(isinstance(item, bool) or not isinstance(item, str | int) for item in value):
            raise InputError(f"Got {name}: {value} in the recipe; put words like yes, no or 1.0 in quotes.")
        return [str(item) for item in value]
    return [str(value)]


@cache
def _flags_of_words() -> frozenset[str]:
    """The flags that are not true or false."""
    types = {name: kind for group in _GROUPS for name, kind in get_type_hints(group).items()}
    return frozenset(name for name, kind in types.items() if kind is not bool and bool not in get_args(kind))
