"""The command line: a recipe first (--config), flags over it, one clear sentence for what doesn't fit."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from data_utils.arguments import DataArguments
from data_utils.errors import InputError
from modeling.arguments import ModelArguments
from training.arguments import SentimentTrainingArguments


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}. See --help for all flags.")


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
    parser = _Parser(
        (ModelArguments, DataArguments, SentimentTrainingArguments),
        description=description,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="YAML file of flags (a recipe); flags on the command line win over it.")
    parser.add_argument(
        "--sweep",
        help="Recipe with lists of values in a section `sweep`: train a head over frozen towers for each combination.",
    )
    parser.add_argument(
        "--compare", help="Recipe with a section `runs` of {name: {flag: value}}: train them all, and compare them."
    )
    recipe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe.add_argument("--config")
    known, rest = recipe.parse_known_args(argv)
    flags = [*([] if known.config is None else to_flags(read_recipe(Path(known.config)))), *rest]
    _, unknown = parser.parse_known_args(flags)
    if unknown:
        raise InputError(_explain_unknown(unknown, list(parser._option_string_actions)))
    try:
        model, data, training, others = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    except InputError:
        raise
    except ValueError as error:  # TrainingArguments' own checks
        raise InputError(str(error)) from error
    if others.sweep is not None:
        raise InputError(f"The recipe {known.config} has a section sweep; start it with --sweep in place of --config.")
    if others.compare is not None:
        raise InputError("--compare stands in a recipe; give it on the command line.")
    if training.head_learning_rate is None:
        factor = 1 if model.from_scratch or model.model == "baseline" else 10
        training.head_learning_rate = factor * training.learning_rate
    return model, data, training


def read_recipe(path: Path) -> dict[str, Any]:
    """{flag: value} of a YAML file.

    Raises:
        InputError: it can't be read, or names another recipe.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"Can't read the recipe {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(
            f"The recipe {path} is no mapping; write one `flag: value` a line, without dashes before flag."
        )
    if "config" in values:
        raise InputError(f"The recipe {path} names another recipe (config); a recipe holds flags only.")
    return values


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """{flag: value} as command-line words; a flag without a value is left out."""
    flags: list[str] = []
    for name, value in values.items():
        if value is not None:
            flags += [f"--{name}", *_words(name, value)]
    return flags


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(value)]
    if isinstance(value, list):
        if any(isinstance(item, bool) or not isinstance(item, str | int) for item in value):
            raise InputError(f"Got {name}: {value} in the recipe; put words like yes, no or 1.0 in quotes.")
        return [str(item) for item in value]
    return [str(value)]


def _explain_unknown(unknown: list[str], flags: list[str]) -> str:
    first = next((word for word in unknown if word.startswith("--")), unknown[0]).split("=")[0]
    near = difflib.get_close_matches(first, flags, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Got {' '.join(unknown)!r}, which is no flag of train.py.{hint} See --help for all flags."
