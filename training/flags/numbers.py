"""Which numbers the flags of training take: one table; nothing heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from modeling.errors import InputError

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

MAX_SEED = 2**32 - 1  # numpy's
MAX_COUNT = 10**9
MAX_TRAININGS = 10_000  # of one cross-validation
MAX_PREFETCHED = 1_000  # batches of one worker
MAX_WORKERS = 512  # of one process


@dataclass(frozen=True)
class Numbers:
    """What a flag takes; infinity and nan are never in it.

    Attributes:
        low, high: the least and the largest.
        words: how it is said.
        without_low, without_high: whether that bound itself isn't allowed.
    """

    low: float
    high: float
    words: str
    without_low: bool = False
    without_high: bool = False

    def has(self, value: float) -> bool:
        """Whether `value` is allowed."""
        above = self.low < value if self.without_low else self.low <= value
        return above and (value < self.high if self.without_high else value <= self.high)


_MAX = sys.float_info.max
_ANY = Numbers(0, _MAX, "it must be 0 or more, and finite")
_SWITCHED = Numbers(0, _MAX, "it must be 0 (off) or more, and finite")
_COUNT = Numbers(1, MAX_COUNT, f"it must be more than 0, and at most {MAX_COUNT:,}")
_PART = Numbers(0, 1, "allowed is 0 to less than 1", without_high=True)
_RHYTHM = Numbers(
    0, MAX_COUNT, f"it takes a share of all steps, between 0 and 1, or 1 to {MAX_COUNT:,} whole steps", without_low=True
)
NUMBERS: Mapping[str, Numbers] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "num_train_epochs": Numbers(0, 10**6, "it must be more than 0, and at most 1,000,000", without_low=True),
    "eval_accumulation_steps": _COUNT,
    "save_total_limit": Numbers(1, MAX_COUNT, f"it takes 1 to {MAX_COUNT:,}; a large number keeps all"),
    "torch_empty_cache_steps": _COUNT,
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "dataloader_num_workers": Numbers(0, MAX_WORKERS, f"it must be 0 or more, and at most {MAX_WORKERS}"),
    "dataloader_prefetch_factor": Numbers(1, MAX_PREFETCHED, f"it must be more than 0, and at most {MAX_PREFETCHED:,}"),
    "learning_rate": _ANY,
    "head_learning_rate": _ANY,
    "weight_decay": _ANY,
    "adam_beta1": _PART,
    "adam_beta2": _PART,
    "adam_epsilon": _ANY,
    "max_grad_norm": Numbers(0, _MAX, "it must be 0 (gradients stay as they are) or more, and finite"),
    "label_smoothing_factor": _PART,
    "modality_dropout": Numbers(
        0, 0.5, "allowed is 0 to 0.5, the share of rows that lose their text, and again of rows that lose their picture"
    ),
    "logit_adjustment": _SWITCHED,
    "unimodal_loss_weight": _SWITCHED,
    "neftune_noise_alpha": Numbers(0, 10**6, "allowed is 0 (off) to 1,000,000"),
    "early_stopping_patience": Numbers(0, MAX_COUNT, f"allowed is 0 (off) or more, and at most {MAX_COUNT:,}"),
    "eval_delay": _ANY,
    "warmup_steps": Numbers(
        0, MAX_COUNT, f"it takes a share of all steps, from 0 to below 1, or 1 to {MAX_COUNT:,} whole steps"
    ),
    "logging_steps": _RHYTHM,
    "eval_steps": _RHYTHM,
    "save_steps": _RHYTHM,
    "data_seed": Numbers(0, MAX_SEED, f"allowed is 0 to {MAX_SEED}"),
    "folds": Numbers(2, MAX_TRAININGS, f"it takes 2 or more, at most {MAX_TRAININGS:,}, or is left out"),
}
_WHOLE_ABOVE_1 = ("warmup_steps", "logging_steps", "eval_steps", "save_steps")


def check_numbers(args: SentimentTrainingArguments | SimpleNamespace) -> None:
    """`InputError` for a number that isn't allowed; None, of a flag that wasn't given, is."""
    for name, numbers in NUMBERS.items():
        value = getattr(args, name)
        if value is not None and not (numbers.has(value) and (name not in _WHOLE_ABOVE_1 or _is_whole_above_1(value))):
            raise InputError(f"Got --{name} {value}; {numbers.words}.")
    if args.max_steps != -1 and not _COUNT.has(args.max_steps):
        raise InputError(
            f"Got --max_steps {args.max_steps}; it takes 1 to {MAX_COUNT:,}, or is left out for --num_train_epochs."
        )
    if args.seeds < 1 or (args.seeds > 1 and args.folds is None):
        raise InputError(f"Got --seeds {args.seeds}; it takes 1 or more, and more than 1 only with --folds.")
    if args.folds is not None and args.folds * args.seeds > MAX_TRAININGS:
        raise InputError(
            f"Got --folds {args.folds} and --seeds {args.seeds}, which are {args.folds * args.seeds:,} trainings; at "
            f"most {MAX_TRAININGS:,} are made."
        )
    if not 0 <= args.seed <= MAX_SEED + 1 - args.seeds:
        raise InputError(f"Got --seed {args.seed}; allowed is 0 to {MAX_SEED}, also for the last of --seeds.")


def _is_whole_above_1(value: float) -> bool:
    return value <= 1 or value == int(value)
