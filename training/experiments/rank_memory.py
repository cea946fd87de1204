"""Bytes of parameters, gradients and optimizer state on a rank: by arithmetic, and as its tensors hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, distributed, nn

from training.engine.trainer import SentimentTrainer

FLOAT32_BYTES, ADAMW_BYTES = 4, 8


def estimate_memory(trainer: SentimentTrainer, *, total: int, trainable: int) -> dict[str, float]:
    """Bytes of parameters, gradients and AdamW's state on a rank (Rajbhandari et al. 2020, ZeRO, section 3.1)."""
    ranks, stage = trainer.args.world_size, trainer.zero_stage or (3 if trainer.is_fsdp_enabled else 0)
    half = trainer.is_deepspeed_enabled and trainer.args.mixed_precision in ("bf16", "fp16")
    masters = FLOAT32_BYTES * trainable if trainer.is_deepspeed_enabled and (half or stage < 3) else 0
    return {
        "parameters": (2 if half else FLOAT32_BYTES) * total / (ranks if stage == 3 else 1),
        "gradients": (2 if half else FLOAT32_BYTES) * trainable / (ranks if stage >= 2 else 1),
        "optimizer": (ADAMW_BYTES * trainable + masters) / (ranks if stage >= 1 else 1),
    }


def iterate_parameters(model: nn.Module) -> Iterator[Tensor]:
    """What this rank holds of each parameter."""
    for parameter in model.parameters():
        yield local_part(getattr(parameter, "ds_tensor", parameter))  # ZeRO-3 keeps its share there


def iterate_gradients(trainer: SentimentTrainer) -> Iterator[Tensor]:
    """What this rank holds of each gradient just before the update."""
    if trainer.is_deepspeed_enabled:
        optimizer = trainer.model_wrapped.optimizer
        partitions = getattr(optimizer, "averaged_gradients", {}).values()
        yield from (gradient for partition in partitions for gradient in partition or () if gradient is not None)
        flat = getattr(optimizer, "grad_partitions_flat_buffer", None)
        if flat is not None:
            yield flat
    for parameter in trainer.model.parameters():
        if parameter.grad is not None:
            yield local_part(parameter.grad)


def iterate_optimizer(optimizer: Any) -> Iterator[Tensor]:
    """The state of AdamW's kind on this rank, and the masters that DeepSpeed's optimizer updates."""
    engine_optimizer = getattr(optimizer, "optimizer", optimizer)
    inner = getattr(engine_optimizer, "optimizer", engine_optimizer)
    for state in inner.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                yield local_part(value)
    if inner is not engine_optimizer:
        yield from (parameter for group in inner.param_groups for parameter in group["params"])


def local_part(tensor: Tensor) -> Tensor:
    """This rank's shard of one that FSDP shards, else the tensor itself."""
    return tensor.to_local() if isinstance(tensor, distributed.tensor.DTensor) else tensor


def count_bytes(tensors: Iterator[Tensor]) -> int:
    """Bytes of the memory behind tensors, shared memory once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
