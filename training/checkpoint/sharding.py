"""Weights and optimizer states out of sharded models, and back into them, for any number of ranks and ZeRO stage."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

from data_utils.system.files import remove
from data_utils.system.refusals import MachineError, describe_refusal
from training.checkpoint.checkpoints import CONVERTED
from training.checkpoint.pickles import load_pickle
from training.launch.console import GO_ON

logger = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def gather_float32(engine: Any, *, wanted: bool) -> dict[str, Tensor] | None:
    """A DeepSpeedEngine's float32 master weights and its buffers, on the CPU; None where they aren't `wanted`.

    Every rank calls it.
    """
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in engine.module.named_parameters():
        value = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        if value is None:  # frozen: no optimizer holds a master of it
            with deepspeed.zero.GatheredParameters([parameter]):
                value = parameter.detach().clone()
        if wanted:
            weights[name] = value.to("cpu", torch.float32, copy=True)
    if not wanted:
        return None
    buffers = {name: buffer.cpu() for name, buffer in engine.module.state_dict().items() if name not in weights}
    return weights | buffers


def scatter_weights(engine: Any, weights: dict[str, Tensor]) -> None:
    """Put whole weights into the engine's shards, float32 masters included; every rank calls it with the same.

    Parameters that `weights` doesn't name stay as they are.
    """
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    for name, parameter in engine.module.named_parameters():
        if name not in weights:
            continue
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weights[name])
        if parameter.requires_grad and engine.zero_optimization_stage() == 3:
            safe_set_local_fp32_param(parameter, local_shard(weights[name]).to(parameter.device))
        elif parameter.requires_grad:
            safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))


def local_shard(value: Tensor) -> Tensor:
    """This rank's share of a whole parameter or moment, as ZeRO-3 deals it out: flat, padded to equal lengths.

    DeepSpeed's functions that set a whole one fail where the ranks can't share it evenly (0.19.8).
    """
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    size = -(-value.numel() // ranks)
    return functional.pad(value.flatten(), (0, size * ranks - value.numel())).narrow(0, size * rank, size)


def reshard(model: nn.Module) -> None:
    """Let go of the parameters that FSDP keeps gathered after a forward pass: nothing can be loaded into those."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def load_moments(engine: Any, checkpoint: Path) -> bool:
    """Put the moments and the number of updates of Adam's kind into an engine's shards; a collective of all ranks.

    The engine isn't asked to load the converted checkpoint by itself (`load_universal`): under ZeRO-3 it gives every
    group of parameters the first one's learning rate and weight decay (deepspeed 0.19.8).

    Args:
        engine: DeepSpeedEngine of any ZeRO stage; its weights are left as they are.
        checkpoint: folder with DeepSpeed's global_stepN, on a file system that all ranks see.

    Returns:
        Whether it could be done; if not, nothing was changed.
    """
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    with _converted(checkpoint) as folder:
        names = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
        files = [folder / name / f"{moment}.pt" for name in names for moment in MOMENTS]
        if not all(gather_object([all(file.is_file() for file in files)])):
            return False
        is_stage_3 = engine.zero_optimization_stage() == 3
        _make_states(engine.optimizer, updates=_read_updates(folder, names[0]), is_stage_3=is_stage_3)
        parameters = dict(engine.module.named_parameters())
        for name, moment in itertools.product(names, MOMENTS):
            content = load_pickle(folder / name / f"{moment}.pt")
            value = content["param"] if isinstance(content, dict) else content
            value = value.to(parameters[name].device)
            if is_stage_3:
                safe_set_local_optimizer_state(parameters[name], local_shard(value), moment)
            else:
                safe_set_full_optimizer_state(parameters[name], value, moment)
    return True


def _make_states(optimizer: Any, *, updates: float, is_stage_3: bool) -> None:
    """Give each flat shard of ZeRO's optimizer the state that its first update makes, and the number of updates."""
    shards = optimizer.fp32_partitioned_groups_flat if is_stage_3 else optimizer.single_partition_of_fp32_groups
    for shard in shards:
        moments = {moment: torch.zeros_like(shard, requires_grad=False) for moment in MOMENTS}
        optimizer.optimizer.state[shard] = {STEP: torch.tensor(updates, device=shard.device), **moments}
    if not is_stage_3:
        optimizer._lazy_init_hp_params_optimizer_state()  # ties the parameters to their pieces of the shards


@contextlib.contextmanager
def _converted(checkpoint: Path) -> Iterator[Path]:
    """A folder per parameter with its whole moments, made by rank 0 beside the checkpoint and removed afterwards."""
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint.with_name(CONVERTED)
    if distributed.get_rank() == 0:
        remove(target)
        options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        folders = {
            "input_folder": str(next(checkpoint.glob("global_step*"), checkpoint)),
            "output_folder": str(target / "whole"),
        }
        # It talks on both streams, and takes its two worker counts for processes only where they are over 1.
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                ds_to_universal.main(Namespace(**folders, **options, inject_missing_state=True))
        except Exception as error:
            remove(target)
            size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
            sentence = describe_refusal(error, path=target, need=size, again=GO_ON)
            if sentence is not None:
                raise MachineError(sentence) from error
            # What it can't convert leaves no files, on which the ranks agree afterwards; it raises anything.
            logger.warning("%s can't be converted: %s", checkpoint, f"{type(error).__name__}: {error}")
    distributed.barrier()
    try:
        yield target / "whole" / "zero"
    finally:
        distributed.barrier()
        if distributed.get_rank() == 0:
            remove(target)


def _read_updates(folder: Path, name: str) -> float:
    """Updates made: beside each parameter under ZeRO-1 and 2, in the common state under ZeRO-3."""
    file = folder / name / f"{STEP}.pt"
    if file.is_file():
        return float(load_pickle(file))
    return float(load_pickle(folder / "optimizer_state.pt")["optimizer_state_dict"]["state"][0][STEP])
