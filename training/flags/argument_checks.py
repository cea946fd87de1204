"""Flags of training that contradict each other or are out of range."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers import SchedulerType, Trainer, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.training_args import OptimizerNames

from modeling.errors import InputError, check_choice
from training.flags.device import check_device_flags, check_launch_flags
from training.flags.numbers import check_numbers
from training.flags.own import METRICS

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

METRIC_SCHEDULES = ("reduce_lr_on_plateau", "greedy")
# Of a schedule's arguments those that --lr_scheduler_kwargs doesn't give.
_GIVEN_TO_SCHEDULES = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs")
# Words in the names of optimizers that group a model's weights by themselves.
_GROUP_BY_THEMSELVES = ("galore", "apollo", "lomo")


def check_flags(args: SentimentTrainingArguments) -> None:
    """Refuse, by an `InputError` that says what is allowed, what Trainer would take without a word or end on later."""
    check_launch_flags(args)
    check_device_flags(args)
    check_numbers(args)
    if args.profile and args.dry_run:
        raise InputError("Got --profile and --dry_run, which makes a single update; leave one of the two out.")
    check_choice("--lr_scheduler_type", args.lr_scheduler_type, [each.value for each in SchedulerType])
    check_choice("--optim", args.optim, [each.value for each in OptimizerNames])
    _check_rhythms(args)
    _check_best_model(args)


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
    options = f" and --optim_args {args.optim_args}" if args.optim_args else ""
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)
    except (ImportError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"Got --optim {name}{options}, which can't be had here ({error}); mend that, or leave --optim out."
        ) from error
    for flag in ("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon"):
        default = type(args).__dataclass_fields__[flag].default
        if getattr(args, flag) != default and _optimizer_settings(args, flag, default) == settings:
            raise InputError(
                f"Got --{flag} {getattr(args, flag)}, in which --optim {name} finds nothing to use; leave it out."
            )


def _optimizer_settings(args: SentimentTrainingArguments, flag: str, value: Any) -> dict[str, Any]:
    """What the optimizer would be built with if `flag` were `value`."""
    other = copy.copy(args)
    setattr(other, flag, value)
    return Trainer.get_optimizer_cls_and_kwargs(other)[1]


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


def _check_rhythms(args: SentimentTrainingArguments) -> None:
    """Evaluations and checkpoints must come at moments that fit, or the best model may have no checkpoint."""
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise InputError("Got --save_strategy best and --eval_strategy no: without evaluations no model is the best.")
    if args.lr_scheduler_type in METRIC_SCHEDULES and args.eval_strategy == "no":
        raise InputError(
            f"Got --lr_scheduler_type {args.lr_scheduler_type}, which goes by evaluations, and --eval_strategy no."
        )
    if args.load_best_model_at_end and args.eval_strategy == "epoch" and args.save_strategy == "steps":
        raise InputError(
            "Got --save_strategy steps, and --eval_strategy epoch, after which the best model may have no checkpoint: "
            f"add --eval_strategy steps --eval_steps {args.save_steps:g}, or --load_best_model_at_end false."
        )


def _check_best_model(args: SentimentTrainingArguments) -> None:
    check_choice("--metric_for_best_model", str(args.metric_for_best_model).removeprefix("eval_"), METRICS)
    none_is_best = not args.load_best_model_at_end or "no" in (args.eval_strategy, args.save_strategy)
    if args.early_stopping_patience and none_is_best:
        raise InputError(
            "--early_stopping_patience needs evaluations and checkpoints: leave --load_best_model_at_end, "
            "--eval_strategy and --save_strategy on."
        )
