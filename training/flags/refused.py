"""Flags of Trainer that can't do here what they say, or that need another flag: tables; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from modeling.choices import FUSIONS, frozen_modalities
from modeling.errors import InputError, check_choice
from training.flags.model import ModelArguments
from training.flags.own import CLASS_WEIGHTS

_PUSH = "what would be uploaded is the folder of checkpoints; upload the model afterwards: hf upload NAME RUN/model"
_FSDP = "the launch says how a model is sharded: accelerate launch --config_file accelerate_configs/fsdp2.yaml"
_LIGER = "these kernels replace layers of language models, which classifiers lack; take --bf16, or --torch_compile"
_METRICS = "the figures need the answers to all rows at once; --eval_accumulation_steps spares the device's memory"
# What any value but the default is answered with.
REFUSED: Mapping[str, str] = {
    "auto_find_batch_size": "it would change the rows per update; lower --per_device_train_batch_size and raise "
    "--gradient_accumulation_steps instead",
    "average_tokens_across_devices": "a loss is always the mean over the rows of all devices",
    "batch_eval_metrics": _METRICS,
    "dataloader_in_order": "a run that is resumed needs the rows in order",
    "debug": "it can't look into models like these; a loss or a gradient that isn't finite stops training by itself, "
    "with the step",
    "do_eval": "--eval_strategy no, epoch or steps says when to evaluate",
    "do_predict": "answers are given by: evaluate.py RUN --predict LIST",
    "do_train": "train.py trains, always; to evaluate a run take evaluate.py RUN",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 end a training with a checkpoint already",
    "eval_do_concat_batches": _METRICS,
    "fsdp": _FSDP,
    "fsdp_config": _FSDP,
    "hub_always_push": _PUSH,
    "hub_model_id": _PUSH,
    "hub_revision": _PUSH,
    "hub_strategy": _PUSH,
    "hub_token": _PUSH,
    "ignore_data_skip": "a resumed run would train on some rows twice and on others never; to pass them over takes no "
    "time here",
    "include_for_metrics": "the figures need answers and labels alone",
    "label_names": "the rows' labels are those of the list --train_file, the classes those of --labels",
    "length_column_name": "the rows have no such column; their tokens are counted",
    "liger_kernel_config": _LIGER,
    "logging_nan_inf_filter": "a loss that isn't finite ends training, and is never logged",
    "optim_target_modules": "the optimizers that take it (GaLore, APOLLO) can't keep the two learning rates of towers "
    "and head",
    "parallelism_config": "each device holds whole rows and layers; launch with one of accelerate_configs/",
    "prediction_loss_only": "the best model is chosen by its answers; --eval_strategy no evaluates nothing",
    "push_to_hub": _PUSH,
    "remove_unused_columns": "what the model reads is chosen by the program",
    "use_cache": "it keeps what a model has generated, and a classifier generates nothing; for frozen towers take "
    "--cache_features",
    "use_liger_kernel": _LIGER,
}
# Of them those whose default would be a lie too: nothing is done by them.
_ALWAYS = ("do_train", "do_eval", "do_predict")
# Of transformers, and none or all of those that are installed.
TRACKERS = (
    *("azure_ml", "comet_ml", "mlflow", "neptune", "tensorboard", "trackio", "wandb", "codecarbon", "clearml"),
    *("dagshub", "flyte", "dvclive", "swanlab", "kubeflow", "none", "all"),
)
CHOICES: Mapping[str, tuple[str, ...]] = {
    "class_weights": CLASS_WEIGHTS,
    "eval_strategy": ("no", "steps", "epoch"),
    "logging_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "ddp_backend": ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"),
    "log_level": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "report_to": TRACKERS,
}


@dataclass(frozen=True)
class Need:
    """What a flag needs to have an effect."""

    is_met: Callable[[SimpleNamespace], bool]
    words: str


_CHECKPOINTING = Need(
    lambda args: bool(args.activation_checkpointing or args.gradient_checkpointing), "--activation_checkpointing"
)
_EVALUATION = Need(lambda args: args.eval_strategy != "no", "--eval_strategy epoch or steps")
_SAVING = Need(lambda args: args.save_strategy != "no", "--save_strategy epoch, steps or best")
_TRACKER = Need(lambda args: args.report_to != ["none"], "--report_to with a tracker")
_TRACKIO = Need(lambda args: any("trackio" in word for word in args.report_to), "--report_to trackio")
_WORKERS = Need(lambda args: args.dataloader_num_workers > 0, "--dataloader_num_workers of 1 or more")
# What any value but the default needs.
NEEDED: Mapping[str, Need] = {
    "activation_checkpointing_kwargs": _CHECKPOINTING,
    "gradient_checkpointing_kwargs": _CHECKPOINTING,
    "eval_delay": _EVALUATION,
    "eval_steps": Need(lambda args: args.eval_strategy == "steps", "--eval_strategy steps"),
    "save_steps": Need(
        lambda args: "steps" in (args.save_strategy, args.eval_strategy if args.save_strategy == "epoch" else None),
        "--save_strategy steps",
    ),
    "logging_steps": Need(lambda args: args.logging_strategy == "steps", "--logging_strategy steps"),
    "save_total_limit": _SAVING,
    "save_only_model": _SAVING,
    "dataloader_multiprocessing_context": _WORKERS,
    "dataloader_persistent_workers": _WORKERS,
    "dataloader_prefetch_factor": _WORKERS,
    "hub_private_repo": _TRACKIO,
    "project": _TRACKIO,
    "trackio_bucket_id": _TRACKIO,
    "trackio_space_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
    "run_name": _TRACKER,
}


def check_choices(given: Mapping[str, Any]) -> None:
    """`InputError` for a word that a flag doesn't take; several may be parted by commas."""
    for flag, allowed in CHOICES.items():
        value = given.get(flag) or []
        for word in ",".join(value).split(",") if isinstance(value, list) else [value]:
            if word:
                check_choice(f"--{flag}", word, allowed)


def refuse_flags(given: Mapping[str, Any], defaults: Mapping[str, Any], model: ModelArguments) -> None:
    """`InputError` for a flag that can't do what it says, or has no effect beside the others or on such a model.

    Args:
        given: {flag: value} of the command line and its recipe.
        defaults: those of all flags.
        model: the model's flags.
    """
    args = SimpleNamespace(**{**defaults, **given})
    for name, value in given.items():
        if value == defaults.get(name) and name not in _ALWAYS:
            continue
        if name in REFUSED:
            raise InputError(f"Got {_show(name, value)}, which train.py can't take: {REFUSED[name]}. Leave it out.")
        if name in NEEDED and not NEEDED[name].is_met(args):
            raise InputError(
                f"Got {_show(name, value)}, which has no effect without {NEEDED[name].words}; add that, or leave it "
                "out."
            )
    details = [name for name in ("torch_compile_backend", "torch_compile_mode") if given.get(name)]
    if details and given.get("torch_compile") is False:
        raise InputError(f"Got --torch_compile False and --{details[0]}, which turns it on; leave one of the two out.")
    _check_texts(args, model)


def _check_texts(args: SimpleNamespace, model: ModelArguments) -> None:
    reads_texts = "text" in FUSIONS[model.fusion]
    trains_words = reads_texts and "text" not in frozen_modalities(model.freeze, model.unfreeze_last)
    if args.neftune_noise_alpha and not trains_words:
        raise InputError(
            f"Got --neftune_noise_alpha {args.neftune_noise_alpha}, which is noise on embeddings of words that train; "
            "here none do: leave it out, or change --fusion, --freeze or --unfreeze_last."
        )
    if args.include_num_input_tokens_seen not in ("no", False) and not reads_texts:
        raise InputError(
            f"Got --include_num_input_tokens_seen {args.include_num_input_tokens_seen}, and --fusion {model.fusion}, "
            "which reads no texts; leave one of the two out."
        )


def _show(name: str, value: Any) -> str:
    if name.endswith("_token"):
        return f"--{name}"
    return " ".join(map(str, [f"--{name}", *(value if isinstance(value, list) else [value])]))
