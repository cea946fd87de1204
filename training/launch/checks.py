"""The ranks of this launch: whether what is there is what was asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, is_compiled_module
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from modeling.errors import InputError
from training.launch.ranks import is_main_process, launched_world_size, uses_fsdp

LAUNCH_REMEDY = "Launch with torchrun, or with accelerate and a file of accelerate_configs/."


def check_started_as_asked() -> None:
    """`InputError` for one process instead of several, or FSDP without an accelerator."""
    # accelerate names the main process's address when it was asked for several, even where it then starts only one.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise InputError(
            "accelerate was asked for several processes, but started one (it does so on the CPU with --cpu, or without "
            "a distributed_type). Take accelerate_configs/multi_gpu.yaml and --num_processes N, on CPUs too; "
            "for one process on purpose, unset MASTER_ADDR."
        )
    if uses_fsdp() and not torch.accelerator.is_available():
        raise InputError(
            "The launch asks for FSDP, but this machine has no accelerator, where accelerate would silently train "
            "data parallel instead. Take accelerate_configs/zero3.yaml, which shards on CPUs too, or multi_gpu.yaml."
        )


def choose_precision(*, bf16: bool | None, fp16: bool | None) -> str:
    """The one mixed precision (no, bf16, fp16, fp8) of flags and launcher; `InputError` where they contradict."""
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if bf16 and fp16:
        raise InputError("Got --bf16 and --fp16; choose one.")
    flags = "bf16" if bf16 else "fp16" if fp16 else None
    is_refused = {"bf16": bf16, "fp16": fp16}.get(launcher) is False
    if launcher != "no" and (is_refused or flags not in (None, launcher)):
        said = f"--{flags}" if flags else f"--{launcher} False"
        raise InputError(f"The launcher says mixed_precision: {launcher}, the command line says {said}; leave one out.")
    precision = flags or launcher
    if precision in ("fp16", "fp8") and not torch.accelerator.is_available():
        source = f"--{precision}" if flags else f"mixed_precision: {precision}"
        raise InputError(f"Got {source} on a machine without an accelerator, which can't do it; use --bf16 or neither.")
    return precision


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices by instructions of its own; others emulate them, slower."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def count_matrix_weights(model: nn.Module) -> int:
    """Weights of the towers' linear layers and convolutions: what a forward multiplies with, tables not counted."""
    layers = (layer for name, layer in model.named_modules() if name.startswith(("text_tower.", "image_tower.")))
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))


def join_ranks_on_cpu(timeout: float) -> None:
    """Make the process group of data parallel on CPUs, with the timeout (seconds) that Trainer forgets there."""
    if launched_world_size() > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout))


def shares_files(folder: Path) -> bool:
    """Whether all machines of the launch see the same files in `folder`, found out with a file; every rank calls it."""
    if launched_world_size() == int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        return True
    names = [f".seen-{uuid.uuid4().hex}"]
    broadcast_object_list(names)
    sign = folder / names[0]
    if is_main_process():
        sign.touch()
    sees_it = gather_object([distributed.barrier() or sign.exists()])
    if is_main_process():
        sign.unlink()
    return all(sees_it)


def check_same_everywhere(values: Mapping[str, str]) -> None:
    """`InputError` on ranks that would train on different rows, as from an older copy of the data on one machine.

    `values` are what has to be the same on all ranks, by its name.
    """
    found = gather_object([dict(values)])
    differing = [name for name in values if len({each[name] for each in found}) > 1]
    if differing:
        raise InputError(f"The machines see different data ({', '.join(differing)}); give all the same files.")


def check_wrapping(model: nn.Module, *, zero_stage: int | None, world_size: int) -> None:
    """`InputError` where a model, prepared for training, is not tied to the other ranks in the way that was asked for.

    Without DeepSpeed `zero_stage` is None.
    """
    if zero_stage is not None:
        from deepspeed import DeepSpeedEngine

        found = model.zero_optimization_stage() if isinstance(model, DeepSpeedEngine) else None
        if found != zero_stage:
            raise InputError(f"The launch asks for ZeRO-{zero_stage}, but the model is under ZeRO-{found}.")
    elif uses_fsdp():
        if not any(isinstance(parameter, distributed.tensor.DTensor) for parameter in model.parameters()):
            raise InputError("The launch asks for FSDP, but no parameter of the model is sharded.")
    elif world_size > 1:
        inner = model._orig_mod if is_compiled_module(model) else model
        if not isinstance(inner, DistributedDataParallel):
            raise InputError(f"{world_size} processes were launched, but each would train alone. {LAUNCH_REMEDY}")


def wait_for_everyone() -> None:
    """Until all ranks are here."""
    PartialState().wait_for_everyone()
