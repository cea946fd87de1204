"""What evaluate.py does, from its arguments to its files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from data_utils.console.command_line import list_flags
from data_utils.system.processes import keep_freed_memory
from evaluation.arguments import EvaluationArguments, TableFlags
from evaluation.export.formats import export_run
from evaluation.predict.ensemble import Ensemble, load_ensemble
from evaluation.predict.loaded_run import LoadedRun
from evaluation.scores.abstention import abstain_out_of_fold
from evaluation.tasks.explanation import explain_split
from evaluation.tasks.list_prediction import predict_list, prepare_list
from evaluation.tasks.output_files import OutputFiles
from evaluation.tasks.split_evaluation import evaluate_split
from evaluation.tasks.stream_prediction import predict_stream
from modeling.errors import InputError

logger = logging.getLogger(__name__)


def run_evaluation(arguments: EvaluationArguments) -> None:
    """Predict, ablate or score, as asked for; every rank calls it, the main rank writes and prints.

    The data are prepared before there is a process group: the ranks wait for each other at the cache's lock, which has
    no time limit, and not at a barrier, which has one.
    """
    transformers_logging.disable_progress_bar()  # each rank would show its own
    ensemble = open_ensemble(arguments)
    precision, abstention = choose_precision(ensemble.first, arguments), None
    if arguments.abstain is not None:
        abstention = abstain_out_of_fold(*ensemble.read_held_out(), arguments.abstain)
    if arguments.predict is None and arguments.data_dir is not None and ensemble.first.data.data is not None:
        raise InputError(f"Got --data_dir, but {arguments.run} was trained on a table; name it by --data.")
    if arguments.export is not None:
        return export_run(ensemble, arguments)
    if arguments.predict is None or arguments.output is None:
        split = ensemble.choose_split(arguments.split)
        parts = ensemble.load_rows(split)
        if arguments.explain:
            # Effects may be smaller than the steps in which half precision gives a probability.
            return explain_split(ensemble, parts, split, arguments, join_ranks(arguments.mixed_precision or "no"))
        return evaluate_split(ensemble, parts, split, arguments, join_ranks(precision), abstention)
    files = OutputFiles(Path(arguments.output))
    if not arguments.streaming:
        asked = prepare_list(ensemble, arguments.predict, files, data_dir=arguments.data_dir)
        return predict_list(ensemble, asked, files, arguments, join_ranks(precision), abstention)
    if ensemble.is_cross_validated:
        raise InputError(
            f"Got --streaming and the cross-validated run {arguments.run}, whose models would each read the stream; "
            "predict with one of the runs in its members/, or a list without --streaming."
        )
    predict_stream(ensemble.first, arguments.predict, files, arguments, join_ranks(precision))


def open_ensemble(arguments: EvaluationArguments) -> Ensemble:
    """The models of the run, which can do what is asked for."""
    ensemble = load_ensemble(
        arguments.run,
        data_dir=arguments.data_dir,
        **{flag.name: getattr(arguments, flag.name) for flag in list_flags(TableFlags)},
        cache_dir=arguments.cache_dir,
        trust_remote_code=arguments.trust_remote_code,
    )
    check_task(ensemble.first.config.task, arguments)
    return ensemble


def check_task(task: str, arguments: EvaluationArguments) -> None:
    """`InputError` for what is not to be had of a model of another task than single_label."""
    for name in ("contributions", "robustness", "abstain", "streaming"):
        if task != "single_label" and getattr(arguments, name):
            raise InputError(f"Got --{name}, which takes a run of --task single_label; this one is of {task}.")


def choose_precision(run: LoadedRun, arguments: EvaluationArguments) -> str:
    """--mixed_precision, else the launcher's, else the training's, so that the figures are those of metrics.json.

    In place of float8 it is the bfloat16 beside it: a loaded model has no float8 layers, and needs no GPU or torchao.
    """
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").replace("fp8", "bf16")
    if arguments.mixed_precision is not None or launcher != "no":
        return arguments.mixed_precision or launcher
    trained = run.environment.get("mixed_precision", "no").replace("fp8", "bf16")
    if trained == "fp16" and not torch.accelerator.is_available():
        logger.warning("The run was trained in float16, which this machine has not: evaluating in float32.")
        return "no"
    return trained


def join_ranks(mixed_precision: str) -> Accelerator:
    """An accelerator of the ranks that were launched; `InputError` where the device can't do the mixed precision."""
    # Nothing is sharded here: each rank holds the whole model, whatever the launcher is configured for.
    # And nothing accumulates: DeepSpeed's "auto" is no number to an accelerator without DeepSpeed.
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"):
        os.environ.pop(name, None)
    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        keep_freed_memory()
    try:
        accelerator = Accelerator(cpu=on_cpu, mixed_precision=mixed_precision)
    except ValueError as error:
        raise InputError(f"{error} Choose another --mixed_precision, or no.") from error
    # Where autocast is not to be had, accelerate goes on in float32 without a word.
    if accelerator.mixed_precision != "no" and not accelerator.native_amp:
        raise InputError(
            f"The device {accelerator.device.type} cannot do {accelerator.mixed_precision}; "
            "choose another --mixed_precision, or no."
        )
    asked_for = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked_for:  # each would write its own results
        raise RuntimeError(f"{asked_for} processes were launched, but this one is of {accelerator.num_processes}.")
    return accelerator
