"""Weights out of sharded models, and back into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional


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
    """Put whole weights into the engine's shards, float32 masters included; every rank calls it with the same."""
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    for name, parameter in engine.module.named_parameters():
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
