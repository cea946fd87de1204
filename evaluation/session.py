"""What evaluate.py does, from its arguments to its files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from data_utils import InputError, add_row_index
from evaluation.ablation import run_ablation, summarise_ablation
from evaluation.arguments import ABLATION_INPUTS, SPLITS, EvaluationArguments
from evaluation.inference import classify, run_inference
from evaluation.loaded_run import LoadedRun, load_run
from evaluation.prediction import PredictionFiles, find_pair_dir, write_predictions
from evaluation.report import format_ablation, format_metrics, write_json
from evaluation.scoring import score_predictions
from evaluation.stream_prediction import predict_stream
from modeling.memory import keep_freed_memory

logger = logging.getLogger(__name__)
SPLIT_TITLES = {"val": "validation", "train": "training part", "all": "training and validation"}


def run_evaluation(arguments: EvaluationArguments) -> None:
    """Predict, ablate or score, as asked for; every rank calls it, the main rank writes and prints.

    The data are prepared before there is a process group: the ranks wait for each other at the cache's lock, which has
    no time limit, and not at a barrier, which has one.

    Raises:
        InputError: the run, the data or a setting can't be used.
    """
    transformers_logging.disable_progress_bar()  # each rank would show its own
    run = load_run(arguments.run, data_dir=arguments.data_dir, cache_dir=arguments.cache_dir)
    if arguments.streaming:
        accelerator = join_ranks(choose_precision(run, arguments))
        predict_stream(run, arguments, accelerator)
    elif arguments.predict is not None:
        _predict(run, arguments)
    elif arguments.ablation:
        _ablate(run, arguments)
    else:
        _score(run, arguments)


def choose_precision(run: LoadedRun, arguments: EvaluationArguments) -> str:
    """--mixed_precision, else the launcher's, else the training's, so that the figures are those of metrics.json."""
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if arguments.mixed_precision is not None or launcher != "no":
        return arguments.mixed_precision or launcher
    trained = run.environment.get("mixed_precision", "no")
    if trained == "fp16" and not torch.accelerator.is_available():
        logger.warning("The run was trained in float16, which this machine has not: evaluating in float32.")
        return "no"
    return trained


def join_ranks(mixed_precision: str) -> Accelerator:
    """An accelerator of the ranks that were launched.

    Raises:
        InputError: the device can't do the mixed precision.
        RuntimeError: the ranks didn't find each other; each would have written its own results.
    """
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
    if accelerator.num_processes != asked_for:
        raise RuntimeError(f"{asked_for} processes were launched, but this one is of {accelerator.num_processes}.")
    return accelerator


def _score(run: LoadedRun, arguments: EvaluationArguments) -> None:
    split = arguments.split or SPLITS[0]
    dataset = run.load_split_rows(split)
    batch_size = arguments.per_device_eval_batch_size
    accelerator = join_ranks(choose_precision(run, arguments))
    outputs = run_inference(
        run.load_model(), dataset, run.collator, batch_size=batch_size, accelerator=accelerator, step=classify
    )
    if accelerator.is_main_process:
        metrics = score_predictions(outputs["probabilities"], dataset["label"][:], run.label_names)
        file = run.folder.evaluation_file(split)
        write_json(file, metrics | {"split": split, "mixed_precision": accelerator.mixed_precision})
        print(format_metrics(metrics, title=SPLIT_TITLES[split]), f"\nSaved in {file}.", sep="\n")


def _ablate(run: LoadedRun, arguments: EvaluationArguments) -> None:
    split, ablation_input = arguments.split or SPLITS[0], arguments.ablation_input or ABLATION_INPUTS[0]
    dataset = run.load_split_rows(split)
    accelerator = join_ranks(choose_precision(run, arguments))
    model = run.load_model()
    if ablation_input == "mask" and model.uses_text and model.uses_image and not run.training["modality_dropout"]:
        logger.warning(
            "This run was trained with --modality_dropout 0, so the vectors that stand for a missing modality were "
            "hardly trained; compare with --ablation_input blank."
        )
    outputs = run_ablation(
        model,
        dataset,
        run.collator,
        run.tokenizer,
        batch_size=arguments.per_device_eval_batch_size,
        accelerator=accelerator,
        ablation_input=ablation_input,
    )
    if accelerator.is_main_process:
        result = summarise_ablation(outputs, dataset["label"][:], run.label_names, ablation_input=ablation_input)
        file = run.folder.ablation_file(split)
        write_json(file, result | {"split": split, "mixed_precision": accelerator.mixed_precision})
        print(format_ablation(result, title=SPLIT_TITLES[split]), f"\nSaved in {file}.", sep="\n")


def _predict(run: LoadedRun, arguments: EvaluationArguments) -> None:
    files = PredictionFiles(source=Path(arguments.predict), output=Path(arguments.output))
    files.prepare_list()
    pair_dir = find_pair_dir(files.source, run, data_dir=arguments.data_dir)
    pairs = run.load_rows(files.source, pair_dir=pair_dir, for_prediction=True)
    dataset, batch_size = add_row_index(pairs.dataset), arguments.per_device_eval_batch_size
    accelerator = join_ranks(choose_precision(run, arguments))
    outputs = run_inference(
        run.load_model(), dataset, run.collator, batch_size=batch_size, accelerator=accelerator, step=classify
    )
    if accelerator.is_main_process:
        metrics = write_predictions(files, dataset, pairs.ledger, outputs["probabilities"], run.label_names)
        if metrics is not None:
            print(format_metrics(metrics, title=f"labelled rows of {files.source}"), end="\n\n")
        print(f"{len(dataset)} predictions are in {files.output}, probabilities in {files.probabilities}.")
