"""Bytes of parameters, gradients and optimizer state on a rank: by arithmetic, and as its tensors hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, distributed, nn

from training.engine.trainer import SentimentTrainer


def estimate_memory(trainer: SentimentTrainer, *, total: int, trainable: int) -> dict[str, float]:
    """Bytes of parameters, gradients and AdamW's state on a rank (Rajbhandari et al. 2020, ZeRO, section 3.1)."""
    ranks, stage = trainer.args.world_size, trainer.zero_stage or (3 if trainer.is_fsdp_enabled else 0)
    is_half = trainer.is_deepspeed_enabled and trainer.args.mixed_precision in ("bf16", "fp16")
    size = 2 if is_half else 4
    masters = 4 * trainable if trainer.is_deepspeed_enabled and (is_half or stage < 3) else 0
    return {
        "parameters": size * total / (ranks if stage == 3 else 1),
        "gradients": size * trainable / (ranks if stage >= 2 else 1),
        "optimizer": (8 * trainable + masters) / (ranks if stage >= 1 else 1),
    }


def own_parameters(model: nn.Module) -> list[Tensor]:
    """What this rank holds of each parameter."""
    return [_own_part(getattr(parameter, "ds_tensor", parameter)) for parameter in model.parameters()]  # ZeRO-3's share


def own_gradients(trainer: SentimentTrainer) -> list[Tensor]:
    """What this rank holds of each gradient just before the update."""
    found = [parameter.grad for parameter in trainer.model.parameters()]
    if trainer.zero_stage:
        optimizer = trainer.model_wrapped.optimizer
        found += [gradient for partition in optimizer.averaged_gradients.values() for gradient in partition or ()]
        found += [optimizer.grad_partitions_flat_buffer] if trainer.zero_stage == 3 else []
    return [_own_part(gradient) for gradient in found if gradient is not None]


def own_optimizer_state(optimizer: Any) -> list[Tensor]:
    """The state of AdamW's kind on this rank, and the masters that DeepSpeed's optimizer updates."""
    engine_optimizer = getattr(optimizer, "optimizer", optimizer)
    inner = getattr(engine_optimizer, "optimizer", engine_optimizer)
    found = [value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor)]
    if inner is not engine_optimizer:
        found += [parameter for group in inner.param_groups for parameter in group["params"]]
    return [_own_part(value) for value in found]


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors, shared memory once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _own_part(tensor: Tensor) -> Tensor:
    """This rank's shard of one that FSDP shards, else the tensor itself."""
    return tensor.to_local() if isinstance(tensor, distributed.tensor.DTensor) else tensor
