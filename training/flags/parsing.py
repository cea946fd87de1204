"""The command line: a recipe first (--config), flags over it, one clear sentence for what doesn't fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from data_utils.console.command_line import FlagParser, list_flags
from data_utils.sources.arguments import DEFAULT_LABELS, DataArguments
from modeling.errors import InputError
from training.flags.model import ModelArguments
from training.flags.own import METRICS
from training.flags.recipe import (
    GROUPS,
    SECTIONS,
    SWEEP,
    all_flags,
    find_recipe,
    join_words,
    read_axes,
    read_recipe,
    read_runs,
    spell_flags,
    to_flags,
    trainer_flags,
)
from training.flags.rules import check_flags, check_texts
from training.flags.search_space import read_space, read_trials
from training.launch.console import quiet

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

T = TypeVar("T")
_RECIPES = {
    "config": "YAML file of flags (a recipe); flags on the command line win over it.",
    "sweep": "Recipe with lists of values in a section `sweep`: train a head over frozen towers for each combination.",
    "compare": "Recipe with a section `runs` of {name: {flag: value}}: train them all, and compare them.",
    "tune": "Recipe with a section `tune` of lists and ranges: choose among --trials of them, judged by nested folds.",
}


class Flags(NamedTuple):
    """All flags of a training."""

    model: ModelArguments
    data: DataArguments
    training: SentimentTrainingArguments


def parse_arguments(argv: Sequence[str], **program: str) -> Flags:
    """The flags of a command line, after those of the YAML file that `--config` names; `program` as of `build_parser`.

    Raises:
        InputError: an unknown flag (with the nearest known one), or a value that isn't allowed.
    """
    starter, path, words = find_recipe(argv)
    if starter not in ("", "--config"):
        raise InputError(f"Got {starter} {path}, which train.py takes; here the flags are those of one training.")
    parser = build_parser(**program)
    (words,) = _list_trainings(parser, starter, path, words).values()
    values = parser.parse(words)
    model, data = _split(values)
    if "head_learning_rate" not in values:
        factor = 1 if model.from_scratch or model.model == "baseline" else 10
        values["head_learning_rate"] = factor * values.get("learning_rate", all_flags()["learning_rate"].default)
    values.setdefault("metric_for_best_model", METRICS[data.task][0])
    # Take seconds, so after what is judged without them.
    from training.flags.arguments import SentimentTrainingArguments
    from training.flags.machine import check_optimizer, check_schedule

    try:
        training = SentimentTrainingArguments(**values)
    except InputError:
        raise
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(str(error)) from error
    check_optimizer(training)
    check_schedule(training)
    return Flags(model, data, training)


def settle(flags: Flags) -> Flags:
    """The flags with the labels of the data, where none are named; `InputError` where they can't be found there."""
    from data_utils.shards.shard_set import find_shards
    from data_utils.tables.opening import settle_labels

    data = flags.data
    if data.streaming and data.labels is None:
        shards = find_shards(data.data_dir, "train")
        data = replace(data, labels=list(shards.labels if shards and shards.labels else DEFAULT_LABELS))
    return flags._replace(data=settle_labels(data))


def check_command_line(argv: Sequence[str], **program: str) -> None:
    """Answer --help, and refuse what can be judged before the imports of a training, which take seconds."""
    starter, path, words = find_recipe(argv)
    if starter == "--tune":
        read_trials(argv)
    parser = build_parser(**program)
    for name, training in _list_trainings(parser, starter, path, words).items():
        try:
            values = parser.parse(training)
            if starter in ("--sweep", "--tune"):  # whose flags of the model are judged together
                _check(values)
            else:
                with quiet(True):  # a training says it again
                    _split(values)
        except InputError as error:
            if starter != "--compare":
                raise
            raise InputError(f"The run {name} of the comparison: {error}") from error


def build_parser(description: str = "Train a classifier.", **program: Any) -> FlagParser:
    """The parser of train.py's flags; those that are Trainer's alone are told by --help_all.

    `description` is for --help; as `program` another name of the program can be given, `prog`.
    """
    usage = "%(prog)s [--config RECIPE] [--flag value ...]"
    parser = FlagParser(*GROUPS, usage=usage, description=description, **program)
    recipes = parser.add_argument_group("recipes")
    for name, text in _RECIPES.items():
        recipes.add_argument(f"--{name}", metavar="FILE", help=text)
    recipes.add_argument("--trials", metavar="N", help="With --tune, how many trials each search makes.")
    parser.add_flags("transformers.Trainer", trainer_flags(), is_hidden=True)
    return parser


def _split(values: dict[str, Any]) -> tuple[ModelArguments, DataArguments]:
    """The flags of model and data, which are taken out of `values`; `InputError` for any that isn't allowed."""
    _check(values)
    model, data = _take(ModelArguments, values), _take(DataArguments, values)
    data.refuse_unused()
    check_texts(values, model)
    return model, data


def _check(values: dict[str, Any]) -> None:
    check_flags(values, {name: flag.default for name, flag in all_flags().items()})


def _take(group: type[T], values: dict[str, Any]) -> T:
    return group(**{flag.name: values.pop(flag.name) for flag in list_flags(group) if flag.name in values})


def _list_trainings(parser: FlagParser, starter: str, path: Path, rest: list[str]) -> dict[str, list[str]]:
    """The command lines of a recipe's trainings by their names; of sweep and tuning those that change one flag."""
    if not starter:
        return {"": rest}

    def check_names(values: dict[str, Any]) -> dict[str, Any]:
        parser.check_names([f"--{name}" for name in values], source=f" in the recipe {path}")
        return values

    if starter == "--compare":
        shared, runs = read_runs(path)
        check_names(shared)
        return {name: join_words(shared | check_names(own), rest) for name, own in runs.items()}
    sections = {flag: name for name, flag in SECTIONS.items()}
    values = read_recipe(path, sections.get(starter))
    section = values.pop(sections.get(starter, SWEEP), None)
    base = join_words(check_names(values), rest)
    if starter == "--config":
        return {"": base}
    if isinstance(section, dict):
        check_names(spell_flags(path, section))
    if starter == "--tune":
        tried = {name: axis.ends() for name, axis in read_space(path, section).axes.items()}
    else:
        tried = {name: list(choices) for name, choices in read_axes(path, section)[0].items()}
    return {f"{name} {each}": [*base, *to_flags({name: each})] for name, ends in tried.items() for each in ends}
