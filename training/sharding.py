"""Whole float32 weights out of DeepSpeed's engine, and back into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gather_float32(engine: Any, *, wanted: bool) -> dict[str, Tensor] | None:
    """The model's float32 master weights and its buffers, on the CPU; a collective of all ranks.

    Args:
        engine: DeepSpeedEngine of any ZeRO stage.
        wanted: whether this rank writes them; others get None.
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
    buffers = {name: buffer.cpu() for name, buffer in engine.module.state_dict().items() if name not in weights}
    return weights | buffers if wanted else None


def scatter_weights(engine: Any, weights: dict[str, Tensor]) -> None:
    """Put whole weights into the engine's shards, float32 masters included; every rank calls it with the same."""
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param

    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weights[name])
        if parameter.requires_grad:
            safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))
