"""Flags that only the libraries and this machine can judge: optimizer, schedule, compiler, and those that take JSON."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from transformers import SchedulerType, Trainer, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.training_args import OptimizerNames

from data_utils.system.bounded import MAX_DOCUMENT, parse_json, read_bounded
from data_utils.system.schema import Within, check_types
from modeling.errors import InputError, check_choice

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

# Of a schedule's arguments those that --lr_scheduler_kwargs doesn't give.
_GIVEN_TO_SCHEDULES = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs")
# Words in the names of optimizers that group a model's weights by themselves, without our two learning rates.
_GROUP_BY_THEMSELVES = ("galore", "apollo", "lomo")
# Of the flags that take JSON, those that take the path of a file as well.
_PATHS = ("accelerator_config", "deepspeed")


@dataclass(frozen=True)
class _Accumulation:
    sync_each_batch: bool = False


@dataclass(frozen=True)
class _Accelerator:
    """What --accelerator_config may say: the values that keep the rows of an update, and their order."""

    split_batches: Literal[False] = False
    dispatch_batches: Literal[False] | None = None
    even_batches: Literal[True] = True
    use_seedable_sampler: Literal[True] = True
    use_configured_state: Literal[False] = False
    non_blocking: bool = False
    gradient_accumulation_kwargs: _Accumulation | None = None


@dataclass(frozen=True)
class _Checkpointing:
    """What --activation_checkpointing_kwargs may say."""

    every_n_layers: Annotated[int, Within(1, 10_000)] = 1
    offload: bool = False
    use_reentrant: Literal[False] = False
    preserve_rng_state: bool = True
    determinism_check: str = "default"
    debug: bool = False
    early_stop: bool = True


# What they take, and what to do about the rest.
_OBJECTS: dict[str, tuple[type, str]] = {
    "accelerator_config": (_Accelerator, "others change the rows of an update (--gradient_accumulation_steps)"),
    "activation_checkpointing_kwargs": (_Checkpointing, "what is reentrant loses gradients behind frozen layers"),
    "lr_scheduler_kwargs": (dict, ""),
    "deepspeed": (dict, ""),
}


def check_typed(args: SentimentTrainingArguments) -> None:
    """`InputError` for words and JSON that Trainer, to which they go next, would take without a word or end on."""
    check_choice("--lr_scheduler_type", args.lr_scheduler_type, [each.value for each in SchedulerType])
    check_choice("--optim", args.optim, [each.value for each in OptimizerNames])
    for name, (kind, remedy) in _OBJECTS.items():
        values = read_object(name, getattr(args, name))
        for key in values if is_dataclass(kind) else ():
            check_choice(f"in --{name} the key", key, [field.name for field in fields(kind)])
        check_types(values, kind, f"--{name}", remedy=remedy)
        if values.get("offload") and not torch.accelerator.is_available():
            raise InputError(f"Got offload in --{name} on a machine without an accelerator; leave it out.")
    if args.torch_compile_mode is not None:
        check_choice("--torch_compile_mode", args.torch_compile_mode, list(torch._inductor.list_mode_options()))


def read_object(name: str, value: object) -> dict[str, Any]:
    """The JSON object that a flag was given, for some flags as a file; empty without one. `InputError` for others."""
    if not isinstance(value, str):
        return value if isinstance(value, dict) else {}
    try:
        is_path = name in _PATHS and not value.startswith("{")
        found = parse_json(read_bounded(Path(value), MAX_DOCUMENT) if is_path else value)
        if not isinstance(found, dict):
            raise ValueError("it is none")
    except (OSError, ValueError) as error:
        kind = "a JSON object, or the path of a file with one" if name in _PATHS else "a JSON object"
        raise InputError(f"Got --{name} {value}, which can't be read ({error}); it takes {kind}.") from error
    return found


def check_optimizer(args: SentimentTrainingArguments) -> None:
    """`InputError` for an optimizer that can't be had, mostly for want of a package, or finds no use for a flag."""
    name = args.optim.value
    if any(word in name for word in _GROUP_BY_THEMSELVES):
        raise InputError(f"Got --optim {name}, which lacks the two learning rates of towers and head; take another.")
    options = f" and --optim_args {args.optim_args}" if args.optim_args else ""
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)
    except (ImportError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"Got --optim {name}{options}, which can't be had here ({error}); change it.") from error
    for flag in ("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon"):
        value, default = getattr(args, flag), type(args).__dataclass_fields__[flag].default
        without = args.replace(**{flag: default})
        if value != default and Trainer.get_optimizer_cls_and_kwargs(without)[1] == settings:
            raise InputError(f"Got --{flag} {value}, in which --optim {name} finds nothing to use; leave it out.")


def check_schedule(args: SentimentTrainingArguments) -> None:
    """`InputError` for a schedule that can't be made, which is found out by making it for a weight of no model."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    kind, options = SchedulerType(args.lr_scheduler_type), args.lr_scheduler_kwargs
    try:
        get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=1, scheduler_specific_kwargs=options)
    except (TypeError, ValueError, ArithmeticError) as error:
        names = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[kind]).parameters
        allowed = ", ".join(name for name in names if name not in _GIVEN_TO_SCHEDULES)
        raise InputError(
            f"Got --lr_scheduler_type {kind.value} and --lr_scheduler_kwargs {options}, of which no schedule can be "
            f"made ({error}); --lr_scheduler_kwargs takes JSON with {allowed or 'what transformers documents for it'}."
        ) from error
