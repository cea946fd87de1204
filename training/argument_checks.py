"""Flags of training that contradict each other or are out of range."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import torch
from transformers import Trainer, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from data_utils.errors import InputError, check_choice
from training.flags import CLASS_WEIGHTS, METRICS

if TYPE_CHECKING:
    from training.arguments import SentimentTrainingArguments

MAX_SEED = 2**32 - 1  # numpy's
# Of a schedule's arguments those that --lr_scheduler_kwargs doesn't give.
_GIVEN_TO_SCHEDULES = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs")
# Words in the names of optimizers that group a model's weights by themselves.
_GROUP_BY_THEMSELVES = ("galore", "apollo", "lomo")


def check_flags(args: SentimentTrainingArguments) -> None:
    """Refuse, by an `InputError` that says what is allowed, what Trainer would take without a word or end on later."""
    if args.auto_find_batch_size:
        raise InputError(
            "Got --auto_find_batch_size, which would change the rows per update; lower "
            "--per_device_train_batch_size and raise --gradient_accumulation_steps instead."
        )
    if args.profile and args.dry_run:
        raise InputError("Got --profile and --dry_run, which makes a single update; leave one of the two out.")
    if args.folds is not None and args.folds < 2:
        raise InputError(f"Got --folds {args.folds}; it takes 2 or more, or is left out.")
    if args.seeds < 1 or (args.seeds > 1 and args.folds is None):
        raise InputError(f"Got --seeds {args.seeds}; it takes 1 or more, and more than 1 only with --folds.")
    check_choice("--class_weights", args.class_weights, CLASS_WEIGHTS)
    _check_best_model(args)
    _check_numbers(args)


def check_optimizer(args: SentimentTrainingArguments) -> None:
    """Refuse an optimizer that can't be had, mostly for want of a package, before the data are prepared.

    Args:
        args: with the parsed --optim.
    """
    name = args.optim.value
    if any(word in name for word in _GROUP_BY_THEMSELVES):
        raise InputError(
            f"Got --optim {name}, which lacks the two learning rates of towers and head, as it groups the weights by "
            "itself; leave --optim out, or take one that keeps our groups, such as adafactor."
        )
    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except (ImportError, ValueError) as error:
        options = f" and --optim_args {args.optim_args}" if args.optim_args else ""
        raise InputError(
            f"Got --optim {name}{options}, which can't be had here ({error}); mend that, or leave --optim out."
        ) from error


def check_schedule(args: SentimentTrainingArguments) -> None:
    """Refuse a schedule that can't be made, by making it for a weight of no model.

    Args:
        args: with the parsed --lr_scheduler_kwargs.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    kind, options = args.lr_scheduler_type, args.lr_scheduler_kwargs
    try:
        get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=1, scheduler_specific_kwargs=options)
    except (TypeError, ValueError, ArithmeticError) as error:
        names = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[kind]).parameters
        allowed = ", ".join(name for name in names if name not in _GIVEN_TO_SCHEDULES)
        raise InputError(
            f"Got --lr_scheduler_type {kind.value} and --lr_scheduler_kwargs {options}, of which no schedule can be "
            f"made ({error}); --lr_scheduler_kwargs takes JSON with {allowed or 'what transformers documents for it'}."
        ) from error


def _check_best_model(args: SentimentTrainingArguments) -> None:
    check_choice("--metric_for_best_model", str(args.metric_for_best_model).removeprefix("eval_"), METRICS)
    if args.early_stopping_patience < 0:
        raise InputError(f"Got --early_stopping_patience {args.early_stopping_patience}; allowed is 0 (off) or more.")
    if args.early_stopping_patience and not args.load_best_model_at_end:
        raise InputError(
            "--early_stopping_patience needs evaluations and checkpoints: leave --load_best_model_at_end, "
            "--eval_strategy and --save_strategy on."
        )


def _check_numbers(args: SentimentTrainingArguments) -> None:
    if not 0 <= args.seed <= MAX_SEED + 1 - args.seeds:
        raise InputError(f"Got --seed {args.seed}; allowed is 0 to {MAX_SEED}, also for the last of --seeds.")
    if not 0 <= args.label_smoothing_factor < 1:
        raise InputError(f"Got --label_smoothing_factor {args.label_smoothing_factor}; allowed is 0 to less than 1.")
    if not 0 <= args.modality_dropout <= 0.5:
        raise InputError(
            f"Got --modality_dropout {args.modality_dropout}; allowed is 0 to 0.5, the share of rows that lose "
            "their text, and again of rows that lose their picture."
        )
    for flag in ("logit_adjustment", "unimodal_loss_weight"):
        if not 0 <= getattr(args, flag) < math.inf:
            raise InputError(f"Got --{flag} {getattr(args, flag)}; it must be 0 (off) or more.")
    for flag in ("learning_rate", "head_learning_rate", "weight_decay", "dataloader_num_workers"):
        value = getattr(args, flag)
        if value is not None and not value >= 0:
            raise InputError(f"Got --{flag} {value}; it must be 0 or more.")
    for flag in (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
    ):
        if not 0 < getattr(args, flag) < math.inf:
            raise InputError(f"Got --{flag} {getattr(args, flag)}; it must be more than 0.")
    if args.max_steps < -1 or args.max_steps == 0:
        raise InputError(
            f"Got --max_steps {args.max_steps}; it takes the number of updates, 1 or more, or -1 where "
            "--num_train_epochs says how many."
        )
