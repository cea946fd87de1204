"""train.py --dry_run: one update on every rank, then a sheet of what this launch really does."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, distributed, nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling import parameter_table
from modeling.plan import ModelPlan
from training.data import TrainingData
from training.launch import is_main_process
from training.stream_data import StreamedData
from training.trainer import SentimentTrainer

FLOAT32_BYTES, ADAMW_BYTES = 4, 8


class OneUpdate(TrainerCallback):
    """Ends training after one update, having looked at it.

    Attributes:
        used: names of the parameters that got a gradient.
        total_steps: updates that the whole training would make.
        memory: bytes of this rank's parameters, gradients and optimizer state.
        loss: of the update.
    """

    def __init__(self, trainer: SentimentTrainer) -> None:
        self.trainer = trainer
        self.used: set[str] = set()
        self.total_steps = 0
        self.memory: Counter[str] = Counter()
        self.loss = float("nan")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.total_steps = state.max_steps
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._note(name))
        if self.trainer.is_deepspeed_enabled:  # its engine updates within the backward pass, before any callback
            step = self.trainer.model_wrapped.step
            self.trainer.model_wrapped.step = lambda *a, **k: (self._measure_gradients(), step(*a, **k))[1]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.trainer.is_deepspeed_enabled:
            self._measure_gradients()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self.memory["optimizer"] = count_bytes(iterate_optimizer(self.trainer.optimizer))
        self.memory["parameters"] = count_bytes(iterate_parameters(self.trainer.model))
        control.should_training_stop = control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def _note(self, name: str) -> Any:
        return lambda gradient: self.used.add(name)

    def _measure_gradients(self) -> None:
        self.memory["gradients"] = count_bytes(iterate_gradients(self.trainer))


def run_dry(trainer: SentimentTrainer, prepared: TrainingData | StreamedData, plan: ModelPlan) -> None:
    """Make one update and print the sheet on the main rank; every rank calls it. Nothing but the data cache stays."""
    one = OneUpdate(trainer)
    trainer.add_callback(one)
    trainer.remove_callback(PrinterCallback)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    facts = {
        "device": f"{trainer.args.device} on {socket.gethostname()}",
        "memory": dict(one.memory),
        "unused": [n for n, p in trainer.model.named_parameters() if p.requires_grad and n not in one.used],
    }
    ranks = gather_object([facts])
    if is_main_process():
        rows = [
            *describe_ranks(trainer, ranks),
            *describe_schedule(trainer, prepared, one),
            *describe_memory(trainer, ranks),
            ("unused parameters", ", ".join(sorted({name for rank in ranks for name in rank["unused"]})) or "none"),
            ("cache", prepared.describe_cache()),
            ("offline", describe_sources(plan)),
            ("first update", f"loss {one.loss:.4f}; {seconds:.1f} s with its start-up"),
        ]
        width = max(len(name) for name, _ in rows)
        print("Dry run: one update was made and thrown away.")
        print(*(f"{name:{width}}  {fact}" for name, fact in rows), sep="\n", flush=True)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)


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
    trainer: SentimentTrainer, prepared: TrainingData | StreamedData, one: OneUpdate
) -> Iterator[tuple[str, str]]:
    """Batch contract, rows, updates, and where the learning rate goes."""
    args = trainer.args
    yield (
        "batch",
        f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} ranks = {args.global_batch_size} rows per update",
    )
    rows = "an uncounted number of" if prepared.num_train_rows is None else prepared.num_train_rows
    yield "rows", f"{rows} for training, {len(prepared.val or ())} for validation"
    per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    yield "updates", f"{one.total_steps}, {per_epoch} per epoch"
    warmup = args.get_warmup_steps(one.total_steps)
    yield (
        "learning rate",
        f"towers {args.learning_rate:g}, new parts {args.head_learning_rate:g}; warm-up until update {warmup}, "
        f"{args.lr_scheduler_type.value} until its end at update {one.total_steps}",
    )


def describe_memory(trainer: SentimentTrainer, ranks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Parameters, and bytes per rank: by arithmetic, and as counted in the processes."""
    table = parameter_table(trainer.accelerator.unwrap_model(trainer.model))
    yield "parameters", f"{table['total'] / 1e6:.2f} M, {table['trainable'] / 1e6:.2f} M of them trainable"
    estimate = estimate_memory(trainer, total=table["total"], trainable=table["trainable"])
    yield "memory per rank, estimated", format_memory(estimate)
    largest = max(ranks, key=lambda rank: sum(rank["memory"].values()))
    yield "memory per rank, measured", f"{format_memory(largest['memory'])} (the largest rank; activations aside)"


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


def format_memory(memory: dict[str, float]) -> str:
    """Bytes by part, in MB, with their sum."""
    parts = ", ".join(f"{name} {memory.get(name, 0) / 1e6:.1f}" for name in ("parameters", "gradients", "optimizer"))
    return f"{sum(memory.values()) / 1e6:.1f} MB: {parts}"


def describe_sources(plan: ModelPlan) -> str:
    """Where pretrained weights came from; what can't be had would have ended the program before."""
    sources = sorted({tower.source for tower in (plan.text, plan.vision) if tower.source is not None})
    return f"nothing is missing; pretrained weights from {', '.join(sources) if sources else 'nowhere (from scratch)'}"


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
