"""What each flag of training may be, and what flags may not be together: tables; nothing heavy is imported."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from modeling.choices import frozen_modalities
from modeling.errors import InputError, check_choice
from training.flags.model import ModelArguments
from training.flags.own import CLASS_WEIGHTS, METRICS
from training.launch.ranks import launched_world_size

Rule = TypeVar("Rule")
MAX_SEED = 2**32 - 1  # numpy's
MAX_COUNT = 10**9
MAX_RANK = 4_096  # of adapters
MAX_TRAININGS = 10_000  # of one cross-validation
METRIC_SCHEDULES = ("reduce_lr_on_plateau", "greedy")
# In each table a key is one flag or several with the same rule.
# Of flags of one word, or of several, in which commas may stand as well.
WORDS = {
    "class_weights": CLASS_WEIGHTS,
    "eval_strategy logging_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),  # or yes or no
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "ddp_backend": ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"),
    "log_level log_level_replica": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    # Of transformers, and none or all of those that are installed.
    "report_to": (
        *("azure_ml", "comet_ml", "mlflow", "neptune", "tensorboard", "trackio", "wandb", "codecarbon", "clearml"),
        *("dagshub", "flyte", "dvclive", "swanlab", "kubeflow", "none", "all"),
    ),
    # Of torch, those that need no package of their own.
    "torch_compile_backend": ("inductor", "eager", "aot_eager", "cudagraphs"),
}


class Numbers(NamedTuple):
    """What a flag takes; infinity and nan are never in it.

    Attributes:
        low, high: the least and the largest.
        words: how it is said.
        is_share: whether it is a share up to 1, and a whole number above.
    """

    low: float
    high: float
    words: str
    is_share: bool = False

    def allow(self, value: float) -> bool:
        return self.low <= value <= self.high and (not self.is_share or value <= 1 or value == int(value))


_ABOVE_0, _BELOW_1 = math.ulp(0), math.nextafter(1, 0)
_COUNT = Numbers(1, MAX_COUNT, f"more than 0, and at most {MAX_COUNT:,}")
_STEPS = f"1 to {MAX_COUNT:,} whole steps"
NUMBERS = {
    "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps torch_empty_cache_steps ddp_timeout ddp_bucket_cap_mb": _COUNT,
    "max_steps": _COUNT._replace(words=f"1 to {MAX_COUNT:,}, or is left out for --num_train_epochs"),
    "save_total_limit": _COUNT._replace(words=f"1 to {MAX_COUNT:,}; a large number keeps all"),
    "learning_rate head_learning_rate weight_decay adam_epsilon eval_delay max_grad_norm logit_adjustment "
    "unimodal_loss_weight": Numbers(0, sys.float_info.max, "0 or more, and finite"),
    "adam_beta1 adam_beta2 label_smoothing_factor": Numbers(0, _BELOW_1, "0 to less than 1"),
    "modality_dropout": Numbers(0, 0.5, "0 to 0.5, the share of rows that lose their text, and again their picture"),
    "neftune_noise_alpha": Numbers(0, 10**6, "0 (off) to 1,000,000"),
    "num_train_epochs": Numbers(_ABOVE_0, 10**6, "more than 0, and at most 1,000,000"),
    "warmup_steps": Numbers(0, MAX_COUNT, f"a share of all steps, from 0 to below 1, or {_STEPS}", True),
    "logging_steps eval_steps save_steps": Numbers(
        *(_ABOVE_0, MAX_COUNT, f"a share of all steps, between 0 and 1, or {_STEPS}", True)
    ),
    "early_stopping_patience": Numbers(0, MAX_COUNT, f"0 (off) or more, and at most {MAX_COUNT:,}"),
    "dataloader_num_workers": Numbers(0, 512, "0 or more, and at most 512"),
    "dataloader_prefetch_factor": Numbers(1, 1_000, "more than 0, and at most 1,000"),
    "data_seed": Numbers(0, MAX_SEED, f"0 to {MAX_SEED}"),
    "folds": Numbers(2, MAX_TRAININGS, f"2 or more, at most {MAX_TRAININGS:,}, or is left out"),
    "lora_rank": Numbers(1, MAX_RANK, f"1 to {MAX_RANK:,}, or is left out"),
    "lora_alpha": _COUNT,
    "ema_decay": Numbers(0, _BELOW_1, "0 (off) to less than 1"),
    "seeds": Numbers(1, sys.float_info.max, "1 or more, and more than 1 only with --folds"),
}
# Flags that can't do here what they say, and why.
NEVER = {
    "auto_find_batch_size": "it would change the rows per update; lower --per_device_train_batch_size and raise "
    "--gradient_accumulation_steps instead",
    "average_tokens_across_devices": "a loss is always the mean over the rows of all devices",
    "batch_eval_metrics eval_do_concat_batches": "the figures need the answers to all rows at once; "
    "--eval_accumulation_steps spares the device's memory",
    "dataloader_in_order": "a run that is resumed needs the rows in order",
    "debug": "a loss or a gradient that isn't finite stops training by itself, with the step",
    "do_eval": "--eval_strategy no, epoch or steps says when to evaluate",
    "do_predict": "answers are given by: evaluate.py RUN --predict LIST",
    "do_train": "train.py trains, always; to evaluate a run take evaluate.py RUN",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 end a training with a checkpoint already",
    "fsdp fsdp_config": "the launch shards: accelerate launch --config_file accelerate_configs/fsdp2.yaml",
    "hub_always_push hub_strategy": "--push_to_hub uploads the model once, at the end",
    "ignore_data_skip": "a resumed run would train on some rows twice; to pass them over takes no time here",
    "include_for_metrics": "the figures need answers and labels alone",
    "label_names": "the rows' labels are those of the list --train_file, the classes those of --labels",
    "length_column_name": "the rows have no such column; their tokens are counted",
    "liger_kernel_config use_liger_kernel": "it is for language models; take --bf16, or --torch_compile",
    "logging_nan_inf_filter": "a loss that isn't finite ends training, and is never logged",
    "optim_target_modules": "the optimizers that take it (GaLore, APOLLO) can't keep the two learning rates of towers "
    "and head",
    "parallelism_config": "each device holds whole rows and layers; launch with one of accelerate_configs/",
    "prediction_loss_only": "the best model is chosen by its answers; --eval_strategy no evaluates nothing",
    "remove_unused_columns": "what the model reads is chosen by the program",
    "use_cache": "a classifier generates nothing to keep; for frozen towers take --cache_features",
}
# Flags that have no meaning for a task.
UNUSED = {
    **dict.fromkeys(("streaming", "logit_adjustment"), ("multi_label", "regression")),
    **dict.fromkeys(("class_weights", "label_smoothing_factor"), ("regression",)),
}
# Flags that have an effect only beside another one.
NEEDS: dict[str, tuple[str, Callable[[SimpleNamespace], bool]]] = {
    "activation_checkpointing_kwargs gradient_checkpointing_kwargs": (
        "--activation_checkpointing",
        lambda args: bool(args.activation_checkpointing or args.gradient_checkpointing),
    ),
    "eval_delay": ("--eval_strategy epoch or steps", lambda args: args.eval_strategy != "no"),
    "eval_steps": ("--eval_strategy steps", lambda args: args.eval_strategy == "steps"),
    "save_steps": (
        "--save_strategy steps",
        lambda args: "steps" in (args.save_strategy, args.eval_strategy if args.save_strategy == "epoch" else None),
    ),
    "logging_steps": ("--logging_strategy steps", lambda args: args.logging_strategy == "steps"),
    "save_total_limit save_only_model": (
        *("--save_strategy epoch, steps or best", lambda args: args.save_strategy != "no"),
    ),
    "dataloader_multiprocessing_context dataloader_persistent_workers dataloader_prefetch_factor": (
        *("--dataloader_num_workers of 1 or more", lambda args: args.dataloader_num_workers > 0),
    ),
    "push_to_hub": ("--hub_model_id user/name", lambda args: args.hub_model_id is not None),
    "hub_model_id hub_revision hub_token": ("--push_to_hub", lambda args: args.push_to_hub),
    "hub_private_repo": (
        *("--push_to_hub", lambda args: args.push_to_hub or any("trackio" in word for word in args.report_to)),
    ),
    "project trackio_bucket_id trackio_space_id trackio_static_space_id": (
        *("--report_to trackio", lambda args: any("trackio" in word for word in args.report_to)),
    ),
    "lora_alpha lora_targets": ("--lora_rank", lambda args: args.lora_rank is not None),
    "run_name": ("--report_to with a tracker", lambda args: args.report_to != ["none"]),
}
# Whose default would be a lie too: nothing is done by them.
_IDLE = ("do_train", "do_eval", "do_predict")


def check_flags(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """`InputError` for a flag that can't be, can't do what it says, or has no effect beside the others.

    Args:
        given: {flag: value} of the command line and its recipe.
        defaults: those of all flags.
    """
    args = SimpleNamespace(**{**defaults, **given})
    changed = {name: value for name, value in given.items() if value != defaults[name] or name in _IDLE}
    contradictions = (_task_faults(args, given), _contradictions(args, given))
    faults = (_single_faults(args, changed), *contradictions, _idle_evaluations(args), _launches(args))
    for sentence in chain(*faults):
        raise InputError(sentence)


def _single_faults(args: SimpleNamespace, changed: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with flags that have another value than the default, the plainest faults first."""
    for name, allowed in _among(changed, WORDS):
        value = changed[name]
        words = filter(None, ",".join(value).split(",")) if isinstance(value, list) else [value]
        for word in words:
            if not isinstance(word, bool):
                check_choice(f"--{name}", word, allowed)
    for name, numbers in _among(changed, NUMBERS):
        if not numbers.allow(changed[name]):
            yield f"Got --{name} {changed[name]}; it takes {numbers.words}."
    for name, reason in _among(changed, NEVER):
        yield f"Got {_show(name, changed[name])}, which train.py can't take: {reason}. Leave it out."
    for name, (needed, is_given) in _among(changed, NEEDS):
        if not is_given(args):
            shown = _show(name, changed[name])
            yield f"Got {shown}, which has no effect without {needed}; add that, or leave it out."


def _task_faults(args: SimpleNamespace, given: Mapping[str, Any]) -> Iterator[str]:
    """What the task has no use for."""
    if "metric_for_best_model" in given:
        name = args.metric_for_best_model.removeprefix("eval_")
        check_choice("--metric_for_best_model", name, METRICS[args.task])
    for name, tasks in UNUSED.items():
        if args.task in tasks and given.get(name) not in (None, False, 0, "none"):
            yield f"Got {_show(name, given[name])} and --task {args.task}, for which there is none; leave it out."


def _among(changed: Mapping[str, Any], table: Mapping[str, Rule]) -> Iterator[tuple[str, Rule]]:
    """The flags of a table that were changed, each with its rule."""
    return ((name, rule) for names, rule in table.items() for name in names.split() if name in changed)


def _show(name: str, value: Any) -> str:
    if name.endswith("_token"):
        return f"--{name}"
    return " ".join(map(str, [f"--{name}", *(value if isinstance(value, list) else [value])]))


def _contradictions(args: SimpleNamespace, given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with flags that are right each for itself."""
    if args.seeds > 1 and args.folds is None:
        yield f"Got --seeds {args.seeds}; it takes {NUMBERS['seeds'].words}."
    if args.folds is not None and (count := args.folds * args.seeds) > MAX_TRAININGS:
        yield f"Got --folds and --seeds that make {count:,} trainings; at most {MAX_TRAININGS:,} are made."
    if not 0 <= args.seed <= MAX_SEED + 1 - args.seeds:
        yield f"Got --seed {args.seed}; allowed is 0 to {MAX_SEED}, also for the last of --seeds."
    if args.profile and args.dry_run:
        yield "Got --profile and --dry_run, which makes a single update; leave one of the two out."
    if args.push_to_hub and (args.folds is not None or args.dry_run):
        other = "--folds" if args.folds is not None else "--dry_run"
        yield f"Got --push_to_hub, which uploads the model of one training, and {other}; leave one of the two out."
    backend, mode = args.torch_compile_backend, args.torch_compile_mode
    if (backend or mode) and given.get("torch_compile") is False:
        detail = "backend" if backend else "mode"
        yield f"Got --torch_compile False and --torch_compile_{detail}, which turns it on; leave one of the two out."
    if mode and backend not in (None, "inductor"):
        yield f"Got --torch_compile_mode and --torch_compile_backend {backend}; a mode is for inductor: leave one out."


def _idle_evaluations(args: SimpleNamespace) -> Iterator[str]:
    """Evaluations and checkpoints must come at moments that fit, or the best model may have no checkpoint."""
    if args.save_strategy == "best" and args.eval_strategy == "no":
        yield "Got --save_strategy best and --eval_strategy no: without evaluations no model is the best."
    if args.lr_scheduler_type in METRIC_SCHEDULES and args.eval_strategy == "no":
        yield f"Got --lr_scheduler_type {args.lr_scheduler_type}, which goes by evaluations, and --eval_strategy no."
    if args.load_best_model_at_end and args.eval_strategy == "epoch" and args.save_strategy == "steps":
        yield (
            "Got --save_strategy steps, and --eval_strategy epoch, after which the best model may have no checkpoint: "
            f"add --eval_strategy steps --eval_steps {args.save_steps:g}, or --load_best_model_at_end false."
        )
    none_is_best = not args.load_best_model_at_end or "no" in (args.eval_strategy, args.save_strategy)
    if args.early_stopping_patience and none_is_best:
        yield "Got --early_stopping_patience, which needs evaluations, checkpoints and --load_best_model_at_end."


def _launches(args: SimpleNamespace) -> Iterator[str]:
    """What another launch would have to be made for."""
    if args.deepspeed and "RANK" not in os.environ:
        yield (
            "Got --deepspeed in a process that no launcher started; start it with accelerate launch --config_file "
            "accelerate_configs/zero2.yaml, in place of the flag."
        )
    if args.ddp_backend is not None and launched_world_size() == 1:
        yield f"Got --ddp_backend {args.ddp_backend}, and one process; leave it out, or launch several."
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if args.local_rank not in (-1, rank):
        yield f"Got --local_rank {args.local_rank} in process {rank}; launchers say it by LOCAL_RANK: leave it out."


def check_texts(given: Mapping[str, Any], model: ModelArguments) -> None:
    """`InputError` for a flag about texts where such a model reads none, or trains none of their words."""
    reads_texts = "text" in model.modalities
    trains_words = reads_texts and "text" not in frozen_modalities(model.freeze, model.unfreeze_last)
    if given.get("neftune_noise_alpha") and not trains_words:
        raise InputError(
            f"Got --neftune_noise_alpha {given['neftune_noise_alpha']}, which is noise on embeddings of words that "
            "train; here none do: leave it out, or change --fusion, --freeze or --unfreeze_last."
        )
    counted = given.get("include_num_input_tokens_seen", "no")
    if counted not in ("no", False) and not reads_texts:
        raise InputError(
            f"Got --include_num_input_tokens_seen {counted}, and --fusion {model.fusion}, which reads no texts; leave "
            "one of the two out."
        )
