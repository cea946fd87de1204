"""The command line: a recipe first (--config), flags over it, one clear sentence for what doesn't fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from data_utils.arguments import DataArguments
from data_utils.bounded import MAX_DOCUMENT, parse_yaml, read_bounded
from data_utils.command_line import Flag, FlagParser, list_flags
from data_utils.errors import InputError
from modeling.arguments import ModelArguments
from training.console import quiet
from training.flags import EvaluationFlags, OutputFlags, TrainingFlags
from training.number_flags import check_numbers
from training.refused_flags import refuse_flags
from training.trainer_flags import read_trainer_flags

if TYPE_CHECKING:
    from training.arguments import SentimentTrainingArguments

T = TypeVar("T")
# Sections that make a recipe one of many trainings, and the flags that start them.
SECTIONS = {"sweep": "--sweep", "runs": "--compare"}
_RECIPE_FLAGS = ("--config", "--sweep", "--compare")
_GROUPS = (ModelArguments, DataArguments, TrainingFlags, EvaluationFlags, OutputFlags)


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
    starter, path, words = find_recipe(argv)
    parser = build_parser(description)
    if starter == "--config":
        words = [*_read_words(parser, starter, path), *words]
    elif starter is not None:
        raise InputError(f"Got {starter} {path}, which train.py takes; here the flags are those of one training.")
    values = parser.parse(words)
    model, data = _split(values)
    from training.arguments import SentimentTrainingArguments  # takes seconds, so after what is judged without it

    try:
        training = SentimentTrainingArguments(**values)
    except InputError:
        raise
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(str(error)) from error
    if training.head_learning_rate is None:
        factor = 1 if model.from_scratch or model.model == "baseline" else 10
        training.head_learning_rate = factor * training.learning_rate
    return model, data, training


def check_command_line(argv: Sequence[str], *, description: str = "Train a classifier.") -> None:
    """Answer --help, and refuse what can be judged before the imports of a training, which take seconds.

    Args:
        argv, description: as of `parse_arguments`.

    Raises:
        InputError: an unknown flag, or a value of the model's or the data's flags that isn't allowed.
    """
    starter, path, words = find_recipe(argv)
    parser = build_parser(description)
    if starter is not None:
        words = [*_read_words(parser, starter, path), *words]
    values = parser.parse(words)
    if starter in (None, "--config"):  # others have flags that are told in their sections
        with quiet(True):  # a training says it again
            _split(values)


def build_parser(description: str) -> FlagParser:
    """The parser of train.py's flags; those that are Trainer's alone are told by --help_all."""
    parser = FlagParser(*_GROUPS, usage="%(prog)s [--config RECIPE] [--flag value ...]", description=description)
    recipes = parser.add_argument_group("recipes")
    recipes.add_argument(
        "--config", metavar="FILE", help="YAML file of flags (a recipe); flags on the command line win over it."
    )
    recipes.add_argument(
        "--sweep",
        metavar="FILE",
        help="Recipe with lists of values in a section `sweep`: train a head over frozen towers for each combination.",
    )
    recipes.add_argument(
        "--compare",
        metavar="FILE",
        help="Recipe with a section `runs` of {name: {flag: value}}: train them all, and compare them.",
    )
    parser.add_flags("transformers.Trainer", _trainer_flags(), is_hidden=True)
    return parser


def _split(values: dict[str, Any]) -> tuple[ModelArguments, DataArguments]:
    """The flags of model and data, which are taken out of `values`; those of training are checked by their tables.

    Raises:
        InputError: a flag isn't allowed, or would have no effect.
    """
    model, data = _take(ModelArguments, values), _take(DataArguments, values)
    data.refuse_unused()
    flags = (*(flag for group in _GROUPS for flag in list_flags(group)), *_trainer_flags())
    defaults = {flag.name: flag.default for flag in flags}
    check_numbers(SimpleNamespace(**{**defaults, **values}))
    refuse_flags(values, defaults, model)
    return model, data


def _take(group: type[T], values: dict[str, Any]) -> T:
    """The dataclass of its own values, which are taken out."""
    return group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})


def _read_words(parser: FlagParser, starter: str, path: Path) -> list[str]:
    """A recipe's flags as words of a command line, without those of its section; all their names are checked.

    Raises:
        InputError: the recipe can't be read, or a name in it is no flag.
    """
    section = next((name for name, flag in SECTIONS.items() if flag == starter), None)
    values = read_recipe(path, section)
    inside = values.pop(section, None)
    parts = inside.values() if section == "runs" and isinstance(inside, dict) else [inside]
    for part in (values, *(part for part in parts if isinstance(part, dict))):
        parser.check_names([f"--{name}" for name in spell_flags(path, part)], source=f" in the recipe {path}")
    return to_flags(values)


def find_recipe(argv: Sequence[str]) -> tuple[str | None, Path | None, list[str]]:
    """The recipe that the command line names.

    Returns:
        `--config`, `--sweep` or `--compare`, the recipe's path, and the other words; without a recipe None twice.

    Raises:
        InputError: it names more than one.
    """
    finder = FlagParser(add_help=False)
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
    flags = [*(flag for group in _GROUPS for flag in list_flags(group)), *_trainer_flags()]
    return frozenset(flag.name for flag in flags if flag.kind is not bool and bool not in get_args(flag.kind))


@cache
def _trainer_flags() -> tuple[Flag, ...]:
    """Trainer's flags without those that stand in our groups."""
    return tuple(read_trainer_flags(without={flag.name for group in _GROUPS for flag in list_flags(group)}))
