"""The lines of the sheet of train.py --dry_run: what this launch really does, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import distributed

from modeling.parameters import parameter_table
from training.build.plan import ModelPlan
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.engine.trainer import SentimentTrainer
from training.experiments.rank_memory import estimate_memory, iterate_parameters


def describe_ranks(trainer: SentimentTrainer, ranks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Ranks and devices, strategy as it was found on the model, precision."""
    args = trainer.args
    devices = Counter(rank["device"] for rank in ranks)
    yield "ranks", f"{args.world_size}: " + ", ".join(f"{count} x {device}" for device, count in devices.items())
    yield "strategy", describe_strategy(trainer)
    precision = args.mixed_precision
    if precision == "no":
        yield "precision", "float32"
    elif trainer.is_deepspeed_enabled:
        yield "precision", f"{precision} weights and computation, float32 masters in the optimizer (DeepSpeed)"
    else:
        yield "precision", f"{precision} computation (autocast), float32 weights and optimizer"


def describe_strategy(trainer: SentimentTrainer) -> str:
    """How the prepared model is wrapped and what share of it lies on this rank."""
    model = trainer.model_wrapped
    whole = parameter_table(trainer.accelerator.unwrap_model(trainer.model))["total"]
    local = sum(parameter.numel() for parameter in iterate_parameters(trainer.model))
    share = f"; {local / whole:.0%} of the parameters on rank 0"
    if trainer.is_deepspeed_enabled:
        config = trainer.accelerator.deepspeed_config["zero_optimization"]
        offload = [key for key in ("offload_param", "offload_optimizer") if config.get(key, {}).get("device") == "cpu"]
        kept = f", {' and '.join(offload)} to the CPU" if offload else ""
        return f"{type(model).__name__}, ZeRO-{model.zero_optimization_stage()}{kept}{share}"
    if trainer.is_fsdp_enabled:
        groups = sum(isinstance(module, distributed.fsdp.FSDPModule) for module in model.modules())
        return f"FSDP2, {groups} groups of modules{share}"
    return f"{'one process' if trainer.args.world_size == 1 else type(model).__name__}{share}"


def describe_schedule(
    trainer: SentimentTrainer, prepared: TrainingData | StreamedData, total_steps: int
) -> Iterator[tuple[str, str]]:
    """Batch contract, rows, updates (`total_steps` in the whole training), and where the learning rate goes."""
    args = trainer.args
    yield (
        "batch",
        f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} ranks = {args.global_batch_size} rows per update",
    )
    rows = "an uncounted number of" if prepared.num_train_rows is None else prepared.num_train_rows
    yield "rows", f"{rows} for training, {len(prepared.val or ())} for validation"
    per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    yield "updates", f"{total_steps}, {per_epoch} per epoch"
    warmup = args.get_warmup_steps(total_steps)
    yield (
        "learning rate",
        f"towers {args.learning_rate:g}, new parts {args.head_learning_rate:g}; warm-up until update {warmup}, "
        f"{args.lr_scheduler_type.value} until its end at update {total_steps}",
    )


def describe_memory(trainer: SentimentTrainer, ranks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Parameters, and bytes per rank: by arithmetic, and as counted in the processes."""
    table = parameter_table(trainer.accelerator.unwrap_model(trainer.model))
    yield "parameters", f"{table['total'] / 1e6:.2f} M, {table['trainable'] / 1e6:.2f} M of them trainable"
    estimate = estimate_memory(trainer, total=table["total"], trainable=table["trainable"])
    yield "memory per rank, estimated", format_memory(estimate)
    largest = max(ranks, key=lambda rank: sum(rank["memory"].values()))
    yield "memory per rank, measured", f"{format_memory(largest['memory'])} (the largest rank; activations aside)"


def format_memory(memory: dict[str, float]) -> str:
    """Bytes by part, in MB, with their sum."""
    parts = ", ".join(f"{name} {memory.get(name, 0) / 1e6:.1f}" for name in ("parameters", "gradients", "optimizer"))
    return f"{sum(memory.values()) / 1e6:.1f} MB: {parts}"


def describe_sources(plan: ModelPlan) -> str:
    """Where pretrained weights came from; what can't be had would have ended the program before."""
    sources = sorted({tower.source for tower in (plan.text, plan.vision) if tower.source is not None})
    return f"nothing is missing; pretrained weights from {', '.join(sources) if sources else 'nowhere (from scratch)'}"
