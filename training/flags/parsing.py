"""The command line: a recipe first (--config), flags over it, one clear sentence for what doesn't fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from data_utils.console.command_line import FlagParser
from data_utils.sources.arguments import DataArguments
from modeling.errors import InputError
from training.flags.model import ModelArguments
from training.flags.numbers import check_numbers
from training.flags.recipe import (
    GROUPS,
    SECTIONS,
    all_flags,
    find_recipe,
    read_recipe,
    spell_flags,
    to_flags,
    trainer_flags,
)
from training.flags.recipe_sections import check_runs, read_axes
from training.flags.refused import check_choices, refuse_flags
from training.launch.console import quiet

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

T = TypeVar("T")


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
        (words,) = _list_trainings(parser, starter, path, words).values()
    elif starter is not None:
        raise InputError(f"Got {starter} {path}, which train.py takes; here the flags are those of one training.")
    values = parser.parse(words)
    model, data = _split(values)
    from training.flags.arguments import SentimentTrainingArguments  # takes seconds, so after what is judged without it

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
    trainings = {"": words} if starter is None else _list_trainings(parser, starter, path, words)
    for name, training in trainings.items():
        try:
            values = parser.parse(training)
            _check_values(values)
            if starter != "--sweep":  # whose other flags are judged together
                with quiet(True):  # a training says it again
                    _split(values)
        except InputError as error:
            if starter != "--compare":
                raise
            raise InputError(f"The run {name} of the comparison: {error}") from error


def build_parser(description: str) -> FlagParser:
    """The parser of train.py's flags; those that are Trainer's alone are told by --help_all."""
    parser = FlagParser(*GROUPS, usage="%(prog)s [--config RECIPE] [--flag value ...]", description=description)
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
    parser.add_flags("transformers.Trainer", trainer_flags(), is_hidden=True)
    return parser


def _split(values: dict[str, Any]) -> tuple[ModelArguments, DataArguments]:
    """The flags of model and data, which are taken out of `values`; those of training are checked by their tables.

    Raises:
        InputError: a flag isn't allowed, or would have no effect.
    """
    model, data = _take(ModelArguments, values), _take(DataArguments, values)
    data.refuse_unused()
    _check_values(values)
    refuse_flags(values, _defaults(), model)
    return model, data


def _check_values(values: dict[str, Any]) -> None:
    check_choices(values)
    check_numbers(SimpleNamespace(**{**_defaults(), **values}))


def _defaults() -> dict[str, Any]:
    return {name: flag.default for name, flag in all_flags().items()}


def _take(group: type[T], values: dict[str, Any]) -> T:
    """The dataclass of its own values, which are taken out."""
    return group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})


def _list_trainings(parser: FlagParser, starter: str, path: Path, rest: list[str]) -> dict[str, list[str]]:
    """The command lines of a recipe's trainings by their names; of a sweep those that change one flag alone.

    Raises:
        InputError: the recipe or its section can't be read, or a name in it is no flag.
    """
    section = next((name for name, flag in SECTIONS.items() if flag == starter), None)
    values = read_recipe(path, section)
    inside = values.pop(section, None)
    _check_names(parser, path, values)
    if section == "runs":
        check_runs(path, inside)
        for own in inside.values():
            _check_names(parser, path, spell_flags(path, own or {}))
        return {name: [*to_flags(values | spell_flags(path, own or {})), *rest] for name, own in inside.items()}
    base = [*to_flags(values), *rest]
    if section is None:
        return {"": base}
    if isinstance(inside, dict):
        _check_names(parser, path, spell_flags(path, inside))
    axes, _ = read_axes(path, inside)
    one_changed = [[f"--{name}", choice] for name, choices in axes.items() for choice in choices]
    return {" ".join(words): [*base, *words] for words in one_changed}


def _check_names(parser: FlagParser, path: Path, values: dict[str, Any]) -> None:
    parser.check_names([f"--{name}" for name in values], source=f" in the recipe {path}")
