"""train.py --dry_run: one update on every rank, then a sheet of what this launch really does."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, distributed
from transformers import PrinterCallback, TrainerCallback, TrainerControl

from data_utils.console.screen import show
from training.build.parameters import parameter_table
from training.build.plan import ModelPlan
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.engine.trainer import SentimentTrainer
from training.launch.ranks import is_main_process


class OneUpdate(TrainerCallback):
    """Ends training after one update, having looked at it."""

    def __init__(self, trainer: SentimentTrainer) -> None:
        self.trainer = trainer
        self.used: set[str] = set()  # names of the parameters that got a gradient
        self.total_steps, self.loss = 0, float("nan")  # of the whole training, and of this update
        self.memory: dict[str, float] = {}  # bytes of this rank's parameters, gradients and optimizer state

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        self.total_steps = state.max_steps
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient, name=name: self.used.add(name))
        if self.trainer.is_deepspeed_enabled:  # its engine updates within the backward pass, before any callback
            engine, step = self.trainer.model_wrapped, self.trainer.model_wrapped.step

            def measure_and_step(*args: Any, **kwargs: Any) -> Any:
                self.memory["gradients"] = count_bytes(own_gradients(self.trainer))
                return step(*args, **kwargs)

            engine.step = measure_and_step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        if not self.trainer.is_deepspeed_enabled:
            self.memory["gradients"] = count_bytes(own_gradients(self.trainer))

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        self.memory["optimizer"] = count_bytes(own_optimizer_state(self.trainer.optimizer))
        self.memory["parameters"] = count_bytes(own_parameters(self.trainer))
        control.should_training_stop = control.should_log = True

    def on_log(self, args: Any, state: Any, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        self.loss = logs.get("loss", self.loss)


def run_dry(trainer: SentimentTrainer, prepared: TrainingData | StreamedData, plan: ModelPlan) -> None:
    """Make one update and print the sheet on the main rank; every rank calls it."""
    one = OneUpdate(trainer)
    trainer.add_callback(one)
    trainer.remove_callback(PrinterCallback)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    facts = {
        "device": f"{trainer.args.device} on {socket.gethostname()}",
        "memory": one.memory,
        "unused": [n for n, p in trainer.model.named_parameters() if p.requires_grad and n not in one.used],
    }
    ranks = gather_object([facts])
    if is_main_process():
        sheet = describe_launch(trainer, ranks, one.total_steps) | describe_sources(prepared, plan)
        sheet["first update"] = f"loss {one.loss:.4f}; {seconds:.1f} s with its start-up"
        width = max(map(len, sheet))
        lines = (f"{name:{width}}  {fact}" for name, fact in sheet.items())
        show("Dry run: one update was made and thrown away.", *lines)


def describe_launch(trainer: SentimentTrainer, ranks: list[dict[str, Any]], num_updates: int) -> dict[str, str]:
    """Devices, strategy as it is found on the model, updates and memory; `ranks` are the facts of `run_dry`."""
    args, table = trainer.args, parameter_table(trainer.accelerator.unwrap_model(trainer.model))
    devices = Counter(rank["device"] for rank in ranks)
    largest = max((rank["memory"] for rank in ranks), key=lambda memory: sum(memory.values()))
    own_share = sum(part.numel() for part in own_parameters(trainer)) / table["total"]
    per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    precision = "float32"
    if args.mixed_precision != "no":
        what = "computation (autocast), float32 weights and optimizer"
        if trainer.is_deepspeed_enabled:
            what = "weights and computation, float32 masters in the optimizer (DeepSpeed)"
        precision = f"{args.mixed_precision} {what}"
    estimated = estimate_memory(trainer, total=table["total"], trainable=table["trainable"])
    return {
        "ranks": f"{args.world_size}: " + ", ".join(f"{count} x {device}" for device, count in devices.items()),
        "strategy": f"{_describe_strategy(trainer)}; {own_share:.0%} of the parameters on rank 0",
        "precision": precision,
        "batch": f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} ranks = {args.global_batch_size} rows per update",
        "updates": f"{num_updates}, {per_epoch} per epoch",
        "learning rate": f"towers {args.learning_rate:g}, new parts {args.head_learning_rate:g}; warm-up until update "
        f"{args.get_warmup_steps(num_updates)}, {args.lr_scheduler_type.value} until its end at update {num_updates}",
        "parameters": f"{table['total'] / 1e6:.2f} M, {table['trainable'] / 1e6:.2f} M of them trainable",
        "memory per rank, estimated": _format_memory(estimated),
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


def _format_memory(memory: Mapping[str, float]) -> str:
    """Bytes by part, in MB, with their sum."""
    parts = ", ".join(f"{name} {memory.get(name, 0) / 1e6:.1f}" for name in ("parameters", "gradients", "optimizer"))
    return f"{sum(memory.values()) / 1e6:.1f} MB: {parts}"


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


def own_parameters(trainer: SentimentTrainer) -> list[Tensor]:
    """What this rank holds of each parameter; of ZeRO-3's its share."""
    return _own_parts(getattr(parameter, "ds_tensor", parameter) for parameter in trainer.model.parameters())


def own_gradients(trainer: SentimentTrainer) -> list[Tensor]:
    """What this rank holds of each gradient just before the update."""
    found = [parameter.grad for parameter in trainer.model.parameters()]
    if trainer.zero_stage:
        optimizer = trainer.model_wrapped.optimizer
        found += [gradient for partition in optimizer.averaged_gradients.values() for gradient in partition or ()]
        found += [optimizer.grad_partitions_flat_buffer] if trainer.zero_stage == 3 else []
    return _own_parts(found)


def own_optimizer_state(optimizer: Any) -> list[Tensor]:
    """The state of AdamW's kind on this rank, and the masters that DeepSpeed's optimizer updates."""
    engine_optimizer = getattr(optimizer, "optimizer", optimizer)
    inner = getattr(engine_optimizer, "optimizer", engine_optimizer)
    found = [value for state in inner.state.values() for value in state.values()]
    if inner is not engine_optimizer:
        found += [parameter for group in inner.param_groups for parameter in group["params"]]
    return _own_parts(found)


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors, shared memory once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _own_parts(values: Iterable[Any]) -> list[Tensor]:
    """Of tensors this rank's shards, where FSDP shards them."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return [each.to_local() if isinstance(each, distributed.tensor.DTensor) else each for each in tensors]
