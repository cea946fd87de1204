"""Flags of training: those of transformers.TrainingArguments with this project's defaults, and a few of our own."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Self

import torch
from accelerate.utils import parse_flag_from_env
from transformers import IntervalStrategy, TrainingArguments

from data_utils.system.device_copies import can_pin
from data_utils.system.processes import keep_freed_memory
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.flags.machine import check_typed, read_object
from training.flags.own import EvaluationFlags, OutputFlags, TrainingFlags
from training.launch import checks
from training.launch.checks import count_matrix_weights
from training.launch.left_locks import check_no_lock_is_left
from training.launch.ranks import is_local_main_process, launched_world_size, uses_deepspeed, uses_fsdp
from training.launch.trackers import list_trackers, show_settings

logger = logging.getLogger(__name__)
# Of the towers' matrices: smaller ones gain little by bfloat16 on a CPU that has it.
MIN_WEIGHTS_FOR_BF16 = 10_000_000
# Old names of Trainer's flags, and those that newer versions have for them.
CHECKPOINTING = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
# Configurations in which Trainer notes what a training came to.
FILLED_IN = ("accelerator_config", "deepspeed_plugin", "hf_deepspeed_config")
# Flags that change no figure: what is many trainings goes on under others.
NEUTRAL_FLAGS = (
    *("output_dir", "resume_from_checkpoint", "disable_tqdm", "report_to", "run_name", "logging_steps"),
    *("save_total_limit", "local_rank", "use_cpu", "ddp_backend", "ddp_timeout", "dataloader_num_workers"),
    "no_report",
)
# Flags that shape every update: of a training that changed them on its way, config.yaml would tell half.
UPDATE_FLAGS = (
    *("learning_rate", "head_learning_rate", "weight_decay", "optim", "optim_args"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    *("max_grad_norm", "label_smoothing_factor", "neftune_noise_alpha", "class_weights", "logit_adjustment"),
    *("modality_dropout", "unimodal_loss_weight", "ema_decay"),
    "lora_alpha",  # of the model's flags the one that no weight's size tells
)


@dataclass
class SentimentTrainingArguments(TrainingFlags, EvaluationFlags, OutputFlags, TrainingArguments):
    """`TrainingArguments` with the flags and defaults of `training.flags.own`, settled for this launch and then frozen.

    What is found out later, by the run folder, the data and the model, is in others, made by `replace`.
    """

    def __post_init__(self) -> None:
        output_dir = self.output_dir
        self._settle_words()
        check_typed(self)
        self._match_strategies()
        checks.check_started_as_asked()
        if (uses_deepspeed() or self.deepspeed) and is_local_main_process():
            check_no_lock_is_left()
        precision = checks.choose_precision(bf16=self.bf16, fp16=self.fp16)
        self._precision_is_open = precision == "no" and self.bf16 is None and self.fp16 is None
        self.bf16, self.fp16 = precision == "bf16", precision == "fp16"
        self._choose_device()
        super().__post_init__()
        self.output_dir = output_dir  # Trainer's own default isn't ours, which depends on the model
        for old, new in CHECKPOINTING.items():  # which Trainer reads is a matter of its version
            setattr(self, old, getattr(self, new))
        self._check_launch()
        self._is_frozen = True

    def __setattr__(self, name: str, value: object) -> None:
        """Only for what libraries note of their own (_n_gpu), once the arguments are settled."""
        if not name.startswith("_") and "_is_frozen" in self.__dict__:
            raise FrozenInstanceError(f"{name} can't be set: arguments are frozen; `replace` makes others")
        super().__setattr__(name, value)

    def replace(self, **values: Any) -> Self:
        """The same with other values; of what Trainer fills in, each has its own."""
        other = copy.copy(self)
        own = {name: copy.deepcopy(value) for name, value in self.__dict__.items() if name in FILLED_IN}
        other.__dict__.update(own | values)
        return other

    def _settle_words(self) -> None:
        """Bring what was typed into the form that Trainer takes."""
        for old, new in CHECKPOINTING.items():
            if getattr(self, new) is None:
                setattr(self, new, getattr(self, old))
            setattr(self, old, None)  # or Trainer warns of it on every rank
        name = CHECKPOINTING["gradient_checkpointing_kwargs"]
        setattr(self, name, read_object(name, getattr(self, name)) or None)
        self.report_to = list_trackers(self.report_to)
        if self.dry_run:
            self.eval_strategy = self.save_strategy = "no"
            self.report_to, self.disable_tqdm, self.load_best_model_at_end = [], True, False
            self.eval_on_start = False
            self.early_stopping_patience = 0
        if self.__dict__["greater_is_better"] is None:
            self.greater_is_better = not self.metric_for_best_model.endswith(("loss", "ece", "mae", "rmse"))

    def _match_strategies(self) -> None:
        """Without evaluation or checkpoints there is no best model; otherwise both must come at the same steps."""
        if self.load_best_model_at_end and "no" in (self.eval_strategy, self.save_strategy):
            logger.warning("Without evaluation and checkpoints there is no best model: the last one will be kept.")
            self.load_best_model_at_end = False
        elif self.load_best_model_at_end and self.eval_strategy != self.save_strategy and self.save_strategy == "epoch":
            if self.__dict__["save_steps"] == TrainingArguments.save_steps:
                self.save_steps = self.eval_steps or self.logging_steps
            self.save_strategy = self.eval_strategy
            logger.info("Checkpoints are written every %g steps, at evaluations, to have the best.", self.save_steps)

    def _choose_device(self) -> None:
        settled = self.__dict__  # without the types of Trainer's flags, which a checker can't know
        # Where there is a GPU too, Trainer doesn't hear a launcher that asks for the CPU (cpu.yaml).
        settled["use_cpu"] |= parse_flag_from_env("ACCELERATE_USE_CPU")
        if torch.accelerator.is_available() and not self.use_cpu:
            settled["dataloader_pin_memory"] &= can_pin()
            if self.accelerator_config is None:
                settled["accelerator_config"] = {"non_blocking": self.dataloader_pin_memory}
            return
        settled["dataloader_pin_memory"] = False  # nothing to copy to
        keep_freed_memory()
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns that it found this out by itself
        # DeepSpeed ignores a launch marked as CPU, and plain data parallel wraps nothing unless it is marked so.
        if uses_deepspeed() or self.deepspeed:
            settled["ddp_backend"] = self.ddp_backend or "gloo"
        else:
            settled["use_cpu"] = True
            checks.join_ranks_on_cpu(self.ddp_timeout)

    def _validate_args(self) -> None:
        """Trainer's own checks; its one of bfloat16 takes a CPU for a GPU unless it's marked, see `_choose_device`."""
        marked = self.use_cpu
        self.__dict__["use_cpu"] = marked or not torch.accelerator.is_available()
        try:
            super()._validate_args()
        finally:
            self.__dict__["use_cpu"] = marked

    def _check_launch(self) -> None:
        """The processes must have found each other, one takes one device (no `nn.DataParallel`), and flags must fit."""
        asked_for = launched_world_size()
        if self.world_size != asked_for:
            raise InputError(f"{asked_for} processes were launched, {self.world_size} found. {checks.LAUNCH_REMEDY}")
        if self.n_gpu > 1:
            logger.warning("%d GPUs are there and one is used; for all of them launch with multi_gpu.yaml.", self.n_gpu)
            self._n_gpu = 1
        is_sharded = uses_fsdp() or getattr(self.deepspeed_plugin, "zero_stage", 0) == 3
        if self.ema_decay and is_sharded:
            raise InputError(
                f"Got --ema_decay {self.ema_decay}, which averages whole weights, and a launch that shards them "
                "(ZeRO-3, FSDP); launch with accelerate_configs/zero2.yaml or multi_gpu.yaml, or leave it out."
            )

    def with_precision_for(self, model: SentimentClassifier) -> Self:
        """In bfloat16 where neither flags nor launcher say anything, the CPU has it, and the towers are large.

        Not under DeepSpeed, where it would be another arithmetic: half precision throughout.
        """
        gains = count_matrix_weights(model) >= MIN_WEIGHTS_FOR_BF16 and checks.has_fast_bf16()
        if not (self._precision_is_open and self.use_cpu and gains):
            return self
        logger.info("Computing in bfloat16, in which this CPU is faster at such towers; --bf16 False for float32.")
        return self.replace(bf16=True, mixed_precision="bf16")

    def with_global_batch_size(self, rows: int) -> Self:
        """With `rows` per update, by other accumulation or smaller batches; `InputError` if ranks can't share them."""
        if self.global_batch_size == rows:
            return self
        if rows % self.world_size:
            raise InputError(
                f"{self.world_size} processes can't share {rows} rows per update evenly; launch another number."
            )
        per_rank = rows // self.world_size
        sizes = range(1, min(self.per_device_train_batch_size, per_rank) + 1)
        size = max(size for size in sizes if per_rank % size == 0)
        logger.warning(
            "To keep the checkpoint's %d rows per update: --per_device_train_batch_size %d, "
            "--gradient_accumulation_steps %d on %d processes.",
            *(rows, size, per_rank // size, self.world_size),
        )
        return self.replace(per_device_train_batch_size=size, gradient_accumulation_steps=per_rank // size)

    def without_evaluation(self) -> Self:
        """For a run without a validation part: no evaluation, no best model, no early stopping."""
        logger.warning("There is no validation part: nothing is evaluated, and the last model will be kept.")
        off = {"eval_on_start": False, "load_best_model_at_end": False, "early_stopping_patience": 0}
        return self.replace(eval_strategy=IntervalStrategy.NO, **off)

    def beside(self, **groups: Mapping[str, Any]) -> Self:
        """With other flags beside these for trackers, as {group/flag: value}."""
        return self.replace(_beside=groups)

    @property
    def device(self) -> torch.device:
        """Of this rank; the CPU has no index, under which older versions of Trainer can't load an optimizer's state."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def global_batch_size(self) -> int:
        """Rows per update, over all ranks and accumulation steps."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    @property
    def optimizer_kind(self) -> str:
        """What --optim names; fused or not, updates and state are the same."""
        return self.optim.value.removesuffix("_fused")

    @property
    def update_flags(self) -> dict[str, Any]:
        """`UPDATE_FLAGS` with their values, in JSON's own types."""
        values = super().to_dict() | {"optim": self.optimizer_kind} | getattr(self, "_beside", {}).get("model", {})
        return {name: values[name] for name in UPDATE_FLAGS if name in values}

    @property
    def balances_classes(self) -> bool:
        """Whether the training's classes must be counted."""
        return self.class_weights != "none" or self.logit_adjustment > 0

    def to_dict(self) -> dict[str, Any]:
        """What trackers are shown of the flags, in types that they all take."""
        return show_settings({**super().to_dict(), **getattr(self, "_beside", {})})

    def to_plain_dict(self) -> dict[str, Any]:
        """Every flag as YAML's own types, without secrets."""
        return {name: value for name, value in super().to_dict().items() if not name.endswith("_token")}
