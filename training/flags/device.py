"""Flags of launch, device and compiler that can't be had here, or would train something else than was asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from data_utils.system.bounded import MAX_DOCUMENT, parse_json, read_bounded
from modeling.errors import InputError, check_choice
from training.launch.ranks import launched_world_size

if TYPE_CHECKING:
    from training.flags.arguments import SentimentTrainingArguments

# Of torch's, those that need no package of their own.
COMPILERS = ("inductor", "eager", "aot_eager", "cudagraphs")
_CHECKPOINTING = (
    *("every_n_layers", "offload", "use_reentrant"),
    *("preserve_rng_state", "determinism_check", "debug", "early_stop"),
)
# Of the flags that take JSON, those that take the path of a file as well.
_PATHS = ("accelerator_config", "deepspeed")
_ACCUMULATION = "gradient_accumulation_kwargs"
# What --accelerator_config may say: the values that keep the rows of an update, and their order.
_ACCELERATOR: dict[str, tuple[Any, ...]] = {
    "split_batches": (False,),
    "dispatch_batches": (None, False),
    "even_batches": (True,),
    "use_seedable_sampler": (True,),
    "use_configured_state": (False,),
    "non_blocking": (False, True),
}


def check_launch_flags(args: SentimentTrainingArguments) -> None:
    """`InputError` for flags that need another launch; `args` are as given."""
    if args.deepspeed and "RANK" not in os.environ:
        raise InputError(
            "Got --deepspeed in a process that no launcher started; start it with accelerate launch --config_file "
            "accelerate_configs/zero2.yaml, in place of the flag."
        )
    if args.ddp_backend is not None and launched_world_size() == 1:
        raise InputError(f"Got --ddp_backend {args.ddp_backend}, and one process; leave it out, or launch several.")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if args.local_rank not in (-1, rank):
        raise InputError(
            f"Got --local_rank {args.local_rank} in process {rank}; launchers say it by LOCAL_RANK: leave it out."
        )


def check_device_flags(args: SentimentTrainingArguments) -> None:
    """`InputError` for what --accelerator_config, --activation_checkpointing_kwargs or --torch_compile can't do."""
    _check_accelerator(read_object("accelerator_config", args.accelerator_config))
    _check_checkpointing(read_object("activation_checkpointing_kwargs", args.activation_checkpointing_kwargs))
    for name in ("lr_scheduler_kwargs", "deepspeed"):
        read_object(name, getattr(args, name))
    if args.torch_compile or args.torch_compile_backend or args.torch_compile_mode:
        _check_compiler(args.torch_compile_backend or "inductor", args.torch_compile_mode)


def read_object(name: str, value: object) -> dict[str, Any]:
    """The JSON object that a flag was given, or for some flags the path of its file; empty where it wasn't given.

    Raises:
        InputError: it is none, or can't be read.
    """
    if not isinstance(value, str):
        return value if isinstance(value, dict) else {}
    kind = "a JSON object, or the path of a file with one" if name in _PATHS else "a JSON object"
    try:
        is_path = name in _PATHS and not value.startswith("{")
        found = parse_json(read_bounded(Path(value), MAX_DOCUMENT) if is_path else value)
    except (OSError, ValueError) as error:
        raise InputError(f"Got --{name} {value}, which can't be read ({error}); it takes {kind}.") from error
    if not isinstance(found, dict):
        raise InputError(f"Got --{name} {value}; it takes {kind}, like '{{\"key\": 1}}'.")
    return found


def _check_accelerator(config: dict[str, Any]) -> None:
    for key, value in config.items():
        check_choice("in --accelerator_config the key", key, (*_ACCELERATOR, _ACCUMULATION))
        if key != _ACCUMULATION and value not in _ACCELERATOR[key]:
            raise InputError(
                f"Got {key} {json.dumps(value)} in --accelerator_config, which changes the rows of an update or their "
                f"order; it takes {' or '.join(map(json.dumps, _ACCELERATOR[key]))}."
            )
    accumulation = config.get(_ACCUMULATION) or {}
    if not isinstance(accumulation, dict) or any(
        key != "sync_each_batch" or not isinstance(value, bool) for key, value in accumulation.items()
    ):
        raise InputError(
            f"Got {_ACCUMULATION} {json.dumps(accumulation)} in --accelerator_config; it takes sync_each_batch, true "
            "or false. How many batches an update has is said by --gradient_accumulation_steps."
        )


def _check_checkpointing(options: dict[str, Any]) -> None:
    flag = "activation_checkpointing_kwargs"
    for key, value in options.items():
        if key == "use_reentrant" and value is not False:
            raise InputError(
                f"Got use_reentrant {json.dumps(value)} in --{flag}, which loses gradients behind frozen layers and "
                "fails on several processes; leave it out."
            )
        check_choice(f"in --{flag} the key", key, _CHECKPOINTING)
    layers = options.get("every_n_layers", 1)
    if type(layers) is not int or layers < 1:
        raise InputError(f"Got every_n_layers {json.dumps(layers)} in --{flag}; it takes a whole number from 1.")
    if options.get("offload") and not torch.accelerator.is_available():
        raise InputError(f"Got offload in --{flag} on a machine without an accelerator; leave it out.")


def _check_compiler(backend: str, mode: str | None) -> None:
    check_choice("--torch_compile_backend", backend, COMPILERS)
    if mode is not None and backend != "inductor":
        raise InputError(
            f"Got --torch_compile_mode {mode} and --torch_compile_backend {backend}; a mode is for inductor: leave one "
            "of the two out."
        )
    if mode is not None:
        check_choice("--torch_compile_mode", mode, list(torch._inductor.list_mode_options()))
