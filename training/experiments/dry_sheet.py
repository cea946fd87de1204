"""The sheet of train.py --dry_run: what this launch really does, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import distributed

from training.build.parameters import parameter_table
from training.build.plan import ModelPlan
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.engine.trainer import SentimentTrainer
from training.experiments.rank_memory import estimate_memory, own_parameters


def describe_launch(trainer: SentimentTrainer, ranks: list[dict[str, Any]], num_updates: int) -> dict[str, str]:
    """Devices, strategy as it is found on the model, updates and memory.

    Args:
        trainer: of the main rank, after an update.
        ranks: device, bytes of memory by part and names of unused parameters of each rank.
        num_updates: of the whole training.
    """
    args, table = trainer.args, parameter_table(trainer.accelerator.unwrap_model(trainer.model))
    devices = Counter(rank["device"] for rank in ranks)
    largest = max((rank["memory"] for rank in ranks), key=lambda memory: sum(memory.values()))
    own_share = sum(part.numel() for part in own_parameters(trainer.model)) / table["total"]
    per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    return {
        "ranks": f"{args.world_size}: " + ", ".join(f"{count} x {device}" for device, count in devices.items()),
        "strategy": f"{_describe_strategy(trainer)}; {own_share:.0%} of the parameters on rank 0",
        "precision": _describe_precision(trainer),
        "batch": f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} ranks = {args.global_batch_size} rows per update",
        "updates": f"{num_updates}, {per_epoch} per epoch",
        "learning rate": f"towers {args.learning_rate:g}, new parts {args.head_learning_rate:g}; warm-up until update "
        f"{args.get_warmup_steps(num_updates)}, {args.lr_scheduler_type.value} until its end at update {num_updates}",
        "parameters": f"{table['total'] / 1e6:.2f} M, {table['trainable'] / 1e6:.2f} M of them trainable",
        "memory per rank, estimated": _format_memory(
            estimate_memory(trainer, total=table["total"], trainable=table["trainable"])
        ),
        "memory per rank, measured": f"{_format_memory(largest)} (the largest rank; activations aside)",
        "unused parameters": ", ".join(sorted({name for rank in ranks for name in rank["unused"]})) or "none",
    }


def describe_sources(prepared: TrainingData | StreamedData, plan: ModelPlan) -> dict[str, str]:
    """Rows, faults, cache and pretrained weights; what can't be had would have ended the program before."""
    num_rows = "an uncounted number of" if prepared.num_train_rows is None else prepared.num_train_rows
    sources = sorted({tower.source.name for tower in (plan.text, plan.vision) if tower.source is not None})
    return {
        "rows": f"{num_rows} for training, {len(prepared.val or ())} for validation",
        "faulty rows": "; ".join(prepared.quarantine.summary().splitlines()) or "none found",
        "cache": prepared.describe_cache(),
        "offline": "nothing is missing; pretrained weights from " + (", ".join(sources) or "nowhere (from scratch)"),
    }


def _describe_strategy(trainer: SentimentTrainer) -> str:
    """How the prepared model is wrapped."""
    model = trainer.model_wrapped
    if trainer.is_deepspeed_enabled:
        config = trainer.accelerator.deepspeed_config["zero_optimization"]
        offload = [key for key in ("offload_param", "offload_optimizer") if config.get(key, {}).get("device") == "cpu"]
        kept = f", {' and '.join(offload)} to the CPU" if offload else ""
        return f"{type(model).__name__}, ZeRO-{model.zero_optimization_stage()}{kept}"
    if trainer.is_fsdp_enabled:
        num_groups = sum(isinstance(module, distributed.fsdp.FSDPModule) for module in model.modules())
        return f"FSDP2, {num_groups} groups of modules"
    return "one process" if trainer.args.world_size == 1 else type(model).__name__


def _describe_precision(trainer: SentimentTrainer) -> str:
    precision = trainer.args.mixed_precision
    if precision == "no":
        return "float32"
    if trainer.is_deepspeed_enabled:
        return f"{precision} weights and computation, float32 masters in the optimizer (DeepSpeed)"
    return f"{precision} computation (autocast), float32 weights and optimizer"


def _format_memory(memory: Mapping[str, float]) -> str:
    """Bytes by part, in MB, with their sum."""
    parts = ", ".join(f"{name} {memory.get(name, 0) / 1e6:.1f}" for name in ("parameters", "gradients", "optimizer"))
    return f"{sum(memory.values()) / 1e6:.1f} MB: {parts}"
