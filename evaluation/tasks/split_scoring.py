"""evaluate.py on labelled rows of the run: score them, take modalities away, or corrupt them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from data_utils.console.screen import show
from data_utils.system.files import write_csv
from evaluation.arguments import ABLATION_INPUTS, EvaluationArguments
from evaluation.predict.held_out import read_held_out
from evaluation.predict.inference import Outputs, classify, run_inference
from evaluation.predict.loaded_run import LoadedRun
from evaluation.predict.members import Judged, Members, judge_rows
from evaluation.robustness.report import format_robustness, write_robustness
from evaluation.robustness.robustness import CONDITIONS, run_robustness, summarise_robustness
from evaluation.scores.abstention import abstain_out_of_fold, format_abstention
from evaluation.scores.contributions import (
    COLUMNS,
    compute_contributions,
    format_contributions,
    summarise_contributions,
)
from evaluation.scores.scoring import format_ablation, format_metrics, score_predictions
from evaluation.tasks.ablation import run_ablation, summarise_ablation
from modeling.classifier import SentimentClassifier
from run_files.output import write_json

logger = logging.getLogger(__name__)
Join = Callable[[], Accelerator]


def judge_split(members: Members, arguments: EvaluationArguments, join: Join) -> None:
    """Judge a part of the run's rows in the way that is asked for; the main rank writes and prints.

    Args:
        members: the run's models.
        arguments: what is asked for.
        join: gives the accelerator; called when the data are prepared.
    """
    split = members.choose_split(arguments.split)
    ways = {
        arguments.ablation: _ablate,
        arguments.contributions: _contribute,
        arguments.robustness: _test_robustness,
    }
    ways.get(True, _score)(members, arguments, join, split)


def warn_of_untrained_masks(run: LoadedRun) -> None:
    """Say so where the vectors that stand for a missing modality were hardly trained."""
    heads_both = run.config.text_tower is not None and run.config.vision_tower is not None
    flags = run.training
    if heads_both and not (flags["modality_dropout"] or flags.get("unimodal_loss_weight")):  # runs of before lack it
        logger.warning(
            "This run was trained with --modality_dropout 0 and without --unimodal_loss_weight, so the vectors that "
            "stand for a missing modality were hardly trained; compare with --ablation_input blank."
        )


def run_classify(
    run: LoadedRun,
    model: SentimentClassifier,
    rows: Dataset,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
) -> Outputs:
    """{"probabilities": (N, C)} of one model."""
    return run_inference(
        model,
        rows,
        run.collator,
        batch_size=arguments.per_device_eval_batch_size,
        accelerator=accelerator,
        step=classify,
    )


def run_inputs(
    run: LoadedRun,
    model: SentimentClassifier,
    rows: Dataset,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    *,
    with_none: bool = False,
) -> Outputs:
    """`run_ablation` of one model."""
    return run_ablation(
        model,
        rows,
        run.collator,
        run.tokenizer,
        batch_size=arguments.per_device_eval_batch_size,
        accelerator=accelerator,
        ablation_input=arguments.ablation_input or ABLATION_INPUTS[0],
        with_none=with_none,
    )


def _score(members: Members, arguments: EvaluationArguments, join: Join, split: str) -> None:
    parts = members.load_rows(split)
    abstention = None if arguments.abstain is None else abstain_out_of_fold(*read_held_out(members), arguments.abstain)
    accelerator = join()
    judged = judge_rows(parts, lambda *each: run_classify(*each, arguments, accelerator))
    if accelerator.is_main_process:
        metrics = score_predictions(judged.outputs["probabilities"], judged.labels, members.first.label_names)
        file = members.folder.evaluation_file(split)
        write_json(file, _describe(metrics, split, accelerator))
        show(format_metrics(metrics, title=members.title(split)), f"\nSaved in {file}.")
        if abstention is not None:
            write_json(members.folder.path / "abstention.json", abstention)
            show(f"\n{format_abstention(abstention)}")


def _ablate(members: Members, arguments: EvaluationArguments, join: Join, split: str) -> None:
    ablation_input = arguments.ablation_input or ABLATION_INPUTS[0]
    parts = members.load_rows(split)
    accelerator = join()
    if ablation_input == "mask":
        warn_of_untrained_masks(members.first)
    judged = judge_rows(parts, lambda *each: run_inputs(*each, arguments, accelerator))
    if accelerator.is_main_process:
        names = members.first.label_names
        result = summarise_ablation(judged.outputs, judged.labels, names, ablation_input=ablation_input)
        file = members.folder.ablation_file(split)
        write_json(file, _describe(result, split, accelerator))
        show(format_ablation(result, title=members.title(split)), f"\nSaved in {file}.")


def _contribute(members: Members, arguments: EvaluationArguments, join: Join, split: str) -> None:
    parts = members.load_rows(split)
    accelerator = join()
    warn_of_untrained_masks(members.first)
    judged = judge_rows(parts, lambda *each: run_inputs(*each, arguments, accelerator, with_none=True))
    if accelerator.is_main_process:
        columns = compute_contributions(judged.outputs)
        summary = summarise_contributions(columns, members.first.label_names)
        file = members.folder.path / f"contributions_{split}.json"
        write_json(file, _describe(summary, split, accelerator))
        _write_columns(file, judged, columns, members)
        show(format_contributions(summary, title=members.title(split)), f"\nSaved in {file}.")


def _write_columns(file: Any, judged: Judged, columns: Mapping[str, Any], members: Members) -> None:
    """The contributions row by row, beside their summary."""
    names = members.first.label_names
    rows = (
        [guid, names[label], names[columns["prediction"][row]], *(f"{columns[name][row]:.6f}" for name in COLUMNS)]
        for row, (guid, label) in enumerate(zip(judged.guids, judged.labels, strict=True))
    )
    write_csv(file.with_suffix(".csv"), [["guid", "label", "prediction", *COLUMNS], *rows])


def _test_robustness(members: Members, arguments: EvaluationArguments, join: Join, split: str) -> None:
    parts = members.load_rows(split)
    accelerator = join()
    warn_of_untrained_masks(members.first)

    def judge(run: LoadedRun, model: SentimentClassifier, rows: Dataset) -> Outputs:
        batch_size = arguments.per_device_eval_batch_size
        found = run_robustness(model, run, rows, batch_size=batch_size, accelerator=accelerator)
        return {condition.name: values for condition, values in found.items()}

    judged = judge_rows(parts, judge)
    if accelerator.is_main_process:
        found = {condition: judged.outputs[condition.name] for condition in CONDITIONS}
        summary = summarise_robustness(found, judged.labels, members.first.label_names)
        file = write_robustness(members.folder.path, split, _describe(summary, split, accelerator))
        show(format_robustness(summary, title=members.title(split)), f"\nSaved in {file}.")


def _describe(result: dict[str, Any], split: str, accelerator: Accelerator) -> dict[str, Any]:
    return result | {"split": split, "mixed_precision": accelerator.mixed_precision}
