"""The section `tune` of a recipe: which flags a tuning tries, and between which values; nothing heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from data_utils.console.command_line import FlagParser, list_flags
from modeling.errors import InputError, check_choice
from training.flags.model import ModelArguments
from training.flags.recipe import FOLDS, SWEPT, TUNE, all_flags, read_choices, read_folds, spell_flags

MAX_TUNED_TRIALS = 10_000
# The seed is none of them: a lucky one is no better model. Nor is anything that changes rows, labels or the judging.
TUNED = (
    *dict.fromkeys((*(name for name in SWEPT if name != "seed"), *(flag.name for flag in list_flags(ModelArguments)))),
    *("text_cleaning", "max_length", "image_size", "image_resize_mode", "gradient_accumulation_steps", "max_grad_norm"),
    *("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "neftune_noise_alpha"),
    *("train_sampling_strategy", "early_stopping_patience"),
)
_RANGE = "{low: 0.0001, high: 0.01, log: true}"
_WRITTEN = f"it takes a list of choices, or a range like {_RANGE}"


class Axis(NamedTuple):
    """The values of one flag: `choices`, each the words of one, or else numbers from `low` to `high`.

    Attributes:
        step: distance of the numbers; None for any between.
        is_log: whether small numbers are as likely as large ones: tried evenly by their logarithm.
        is_whole: whether the flag takes whole numbers alone.
    """

    choices: tuple[tuple[str, ...], ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    is_log: bool = False
    is_whole: bool = False

    def ends(self) -> list[Any]:
        """Of a list all values, of a range both ends, as a recipe has them."""
        if self.choices:
            return [unpack(words) for words in self.choices]
        return [int(end) if self.is_whole else end for end in (self.low, self.high)]


def unpack(words: Sequence[str]) -> Any:
    """The words of a flag's value as a recipe has them: one, or a list."""
    return words[0] if len(words) == 1 else list(words)


class SearchSpace(NamedTuple):
    """What a tuning tries: its axes by their flags, and the number of outer folds."""

    axes: dict[str, Axis]
    num_folds: int


def read_trials(argv: Sequence[str]) -> int:
    """How many trials each search makes, by --trials."""
    finder = FlagParser(add_help=False)
    finder.add_argument("--trials", type=int, default=0)
    trials = finder.parse_known_args(argv)[0].trials
    if not 1 <= trials <= MAX_TUNED_TRIALS:
        raise InputError(f"Got --tune and --trials {trials}; add --trials N, from 1 to {MAX_TUNED_TRIALS:,}.")
    return trials


def read_space(path: Path, section: object) -> SearchSpace:
    """The section of a recipe; `InputError` for a flag that can't be tuned, and for what has no values."""
    if not isinstance(section, dict) or not section.keys() - {FOLDS}:
        raise InputError(
            f"The recipe {path} has no section `{TUNE}` with lines like `fusion: [early, late]` or "
            f"`head_learning_rate: {_RANGE}`."
        )
    axes, num_folds = {}, 5
    for name, values in spell_flags(path, section).items():
        if name == FOLDS:
            num_folds = read_folds(path, values)
        elif name in all_flags() and name not in TUNED:
            raise InputError(
                f"Got {name} in the section {TUNE} of {path}, which can't be tuned: trials must differ in the training "
                f"alone, not in rows, labels, seed or in how they are judged; write it above the section."
            )
        else:
            check_choice(f"in the section {TUNE} of {path} the key", name, (*TUNED, FOLDS))
            axes[name] = (
                _read_range(path, name, values)
                if isinstance(values, Mapping)
                else Axis(read_choices(path, TUNE, name, values))
            )
    return SearchSpace(axes, num_folds)


def _read_range(path: Path, name: str, section: Mapping[Any, Any]) -> Axis:
    kind = all_flags()[name].kind
    kinds = {kind, *get_args(kind)} if get_origin(kind) is not list else {list}
    got = f"Got {name}: {dict(section)} in the section {TUNE} of {path}"
    if not kinds & {int, float} or not {"low", "high"} <= section.keys() <= {"low", "high", "log", "step"}:
        raise InputError(f"{got}; {_WRITTEN if kinds & {int, float} else 'it takes a list of choices'}.")
    is_whole, is_log = float not in kinds, section.get("log", False)
    try:
        # 1e-4 without a dot is a word to YAML.
        numbers = [float(section[key]) for key in ("low", "high", "step") if key in section]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)) or not isinstance(is_log, bool):
        raise InputError(f"{got}; {_WRITTEN}.")
    low, high, step = numbers[0], numbers[1], dict(enumerate(numbers)).get(2)
    if is_whole and any(number % 1 for number in numbers):
        raise InputError(f"{got}; --{name} takes whole numbers.")
    if low >= high:
        raise InputError(f"{got}, an empty range; low must be less than high.")
    if is_log and low <= 0:
        raise InputError(f"{got}; a range with log begins above 0, as 0 has no logarithm.")
    if step is not None and (is_log or not 0 < step <= high - low):
        raise InputError(f"{got}; a step is more than 0, at most high - low, and stands without log.")
    return Axis((), low, high, step, is_log, is_whole)
