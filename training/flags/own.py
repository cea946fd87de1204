"""Our own flags of training, and Trainer's whose default or help is another here; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from data_utils.console.command_line import flag

CLASS_WEIGHTS = ("none", "sqrt", "balanced")
# By the task; the first is its default.
METRICS = {
    "single_label": ("accuracy", "macro_f1", "weighted_f1", "ece", "loss"),
    "multi_label": ("map", "macro_f1", "micro_f1", "weighted_f1", "subset_accuracy", "loss"),
    "regression": ("mae", "rmse", "pearson", "spearman", "loss"),
}
_LISTED = "; ".join(f"{task}: {', '.join(names)}" for task, names in METRICS.items())
LATEST = "latest"


@dataclass
class TrainingFlags:
    """What shapes the updates."""

    group: ClassVar[str] = "training"

    per_device_train_batch_size: int = flag(8, "Rows per device and step.")
    gradient_accumulation_steps: int = flag(1, "Steps whose gradients make one update.")
    num_train_epochs: float = flag(10, "Passes over the training part.")
    max_steps: int = flag(-1, "Updates, in place of --num_train_epochs; -1 for those.")
    learning_rate: float = flag(1e-5, "Peak learning rate of the towers.")
    head_learning_rate: float | None = flag(
        None, "Peak learning rate of all that is new. Default: 10 times --learning_rate, or the same from scratch."
    )
    weight_decay: float = flag(1e-4, "AdamW's weight decay (not on biases and norms).")
    warmup_steps: float = flag(0.1, "Warm-up: a share of all steps if under 1, else steps.")
    lr_scheduler_type: str = flag("cosine", "Shape of the learning rate after warm-up.")
    class_weights: str = flag("none", f"Weights of the loss by 1 / frequency of a class: {', '.join(CLASS_WEIGHTS)}.")
    logit_adjustment: float = flag(
        0.0, "The loss adds this times the log of each class's share to its logit, for rare classes. 0: off."
    )
    modality_dropout: float = flag(
        0.1, "Share of training rows that lose their text, and share that lose their picture. 0: off."
    )
    unimodal_loss_weight: float = flag(
        0.0, "Adds this times the losses of the rows by text alone and by picture alone. 0: off."
    )
    ema_decay: float = flag(
        0.0, "Evaluate and save the moving average of the weights, this part of which stays in each update. 0: off."
    )
    folds: int | None = flag(
        None, "Cross-validation: deal the rows into K folds by group and class; a model of the rest judges each."
    )
    seed: int = flag(42, "Of the split, the new weights, the order of rows, and dropout.")
    seeds: int = flag(1, "With --folds: train each of them this often, from --seed and the seeds after it.")
    # None where they aren't given, so that `--bf16 False` can contradict the launcher; True or False afterwards.
    bf16: bool = flag(None, "Compute in bfloat16; weights and optimizer stay float32.")
    fp16: bool = flag(None, "Compute in float16 (GPU); weights and optimizer float32.")
    # Transformers before 5.20 has these two under the names gradient_checkpointing and ..._kwargs alone.
    activation_checkpointing: bool | None = flag(
        None, "Compute activations a second time, backwards: less memory, slower."
    )
    activation_checkpointing_kwargs: dict[str, Any] | str | None = flag(
        None, "JSON: every_n_layers, offload, and what torch's checkpoint() takes."
    )
    dry_run: bool = flag(False, "Make one update on every rank, print what this launch really does, and write nothing.")
    profile: bool = flag(False, "Write a trace of updates 4 to 6 and a table of where their time went to RUN/profile.")
    ddp_find_unused_parameters: bool | None = flag(None, "Default: on where parameters get no gradient (T5).")


@dataclass
class EvaluationFlags:
    """What is judged, and which model is the best one."""

    group: ClassVar[str] = "evaluation"

    eval_strategy: str = flag("epoch", "When to evaluate: no, steps, epoch.")
    per_device_eval_batch_size: int = flag(32, "Rows per device and evaluation step.")
    load_best_model_at_end: bool = flag(True, "End with the best model, not the last.")
    metric_for_best_model: str = flag("accuracy", f"Validation metric of the best model, by the task: {_LISTED}.")
    early_stopping_patience: int = flag(0, "Stop after this many evaluations without a better model; 0: off.")


@dataclass
class OutputFlags:
    """What is written and where."""

    group: ClassVar[str] = "output"

    output_dir: str | None = flag(None, "Run folder. Default: runs/{model}-{fusion}.")
    save_strategy: str = flag("epoch", "When to save checkpoints: no, steps, epoch, best.")
    save_total_limit: int | None = flag(2, "Checkpoints kept (the best is always kept).")
    resume_from_checkpoint: str | None = flag(
        None, "A checkpoint folder, or latest: the newest of the run folder, if any."
    )
    restore_callback_states_from_checkpoint: bool = flag(True, "A resumed run goes on counting its patience.")
    logging_steps: float = flag(10, "Log the loss every so many steps.")
    report_to: list[str] = flag(["tensorboard"], "Trackers, or none.")
    logging_nan_inf_filter: bool = flag(False, "Not used: a loss that isn't finite ends training.")
    no_report: bool = flag(False, "Leave out RUN/report.html, which evaluate.py RUN --report writes too, with rows.")
    remove_unused_columns: bool = flag(False, "Not used: the collator picks the columns.")
