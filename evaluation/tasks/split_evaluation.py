"""evaluate.py on labelled rows of the run: score them, take modalities away, or corrupt them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator

from data_utils.console.screen import show
from evaluation.arguments import EvaluationArguments
from evaluation.predict.ensemble import Ensemble, EvalResult, MakeStep, Part, evaluate_rows
from evaluation.predict.loaded_run import LoadedRun
from evaluation.robustness.robustness import (
    AskCorrupted,
    format_robustness,
    summarise_robustness,
    write_robustness,
)
from evaluation.scores import contributions
from evaluation.scores.abstention import format_abstention
from evaluation.scores.scoring import format_metrics, score_predictions
from evaluation.scores.tasks import name_task
from evaluation.scores.thresholds import cross_fit_thresholds
from evaluation.tasks.ablation import ABLATION, AskInputs, blank_batch, format_ablation, summarise_ablation
from run_files.output import write_json, write_table

logger = logging.getLogger(__name__)
_FORMATS: dict[str, Callable[..., str]] = {
    "ablation": format_ablation,
    "contributions": contributions.format_contributions,
    "robustness": format_robustness,
    "evaluation": format_metrics,
}


def evaluate_split(
    ensemble: Ensemble,
    parts: Sequence[Part],
    split: str,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    abstention: dict[str, Any] | None,
) -> None:
    """Judge a part of the run's rows in the way that is asked for; the main rank writes and prints."""
    step, batch_size = choose_step(ensemble.first, arguments), arguments.per_device_eval_batch_size
    result = evaluate_rows(parts, step, batch_size=batch_size, accelerator=accelerator)
    if not accelerator.is_main_process:
        return
    folder, title, names = ensemble.folder.path, ensemble.title(split), ensemble.first.label_names
    kind, summary = judge(ensemble, result, split, arguments)
    suffix = "" if split == "val" and kind in ("ablation", "robustness") else f"_{split}"
    file, text = folder / f"{kind}{suffix}.json", _FORMATS[kind](summary, title=title)
    if kind == "contributions":
        columns = contributions.compute_contributions(result.outputs)
        rows = [
            {"guid": guid, "label": names[label], "prediction": names[columns["prediction"][row]]}
            | {name: f"{columns[name][row]:.6f}" for name in contributions.COLUMNS}
            for row, (guid, label) in enumerate(zip(result.guids, result.labels.tolist(), strict=True))
        ]
        write_table(file.with_suffix(".csv"), rows)
    elif kind == "robustness":
        write_robustness(file, split, summary)
    write_json(file, summary | {"split": split, "mixed_precision": accelerator.mixed_precision})
    show(text, f"\nSaved in {file}.")
    if abstention is not None:
        write_json(ensemble.folder.abstention_file, abstention)
        show(f"\n{format_abstention(abstention)}")


def judge(
    ensemble: Ensemble, result: EvalResult, split: str | None, arguments: EvaluationArguments
) -> tuple[str, dict[str, Any]]:
    """The kind of figures that is asked for, and these, ready for JSON; `split` is None for rows of no part."""
    names, thresholds = ensemble.first.label_names, ensemble.thresholds(split)
    if thresholds is None and name_task(result.labels) == "multi_label":  # the same for all inputs
        thresholds = cross_fit_thresholds(result.outputs["full"], result.labels)
    if arguments.ablation:
        given = {"ablation_input": arguments.ablation_input or "mask"}
        return "ablation", summarise_ablation(result.outputs, result.labels, names, thresholds=thresholds, **given)
    if arguments.contributions:
        columns = contributions.compute_contributions(result.outputs)
        return "contributions", contributions.summarise_contributions(columns, names)
    if arguments.robustness:
        return "robustness", summarise_robustness(result.outputs, result.labels, names)
    return "evaluation", score_predictions(result.outputs["full"], result.labels, names, thresholds)


def choose_step(run: LoadedRun, arguments: EvaluationArguments) -> MakeStep:
    """What the models are asked of their rows; warns where they have hardly learned to answer it."""
    if not (arguments.ablation or arguments.contributions or arguments.robustness):
        return lambda *_: AskInputs()
    ablation_input, training = arguments.ablation_input or "mask", run.training
    heads_both = run.config.text_tower is not None and run.config.vision_tower is not None
    is_trained = training["modality_dropout"] or training.get("unimodal_loss_weight")  # runs of before lack it
    if ablation_input == "mask" and heads_both and not is_trained:
        logger.warning(
            "This run was trained with --modality_dropout 0 and without --unimodal_loss_weight, so the vectors that "
            "stand for a missing modality were hardly trained; compare with --ablation_input blank."
        )
    if arguments.robustness:
        return AskCorrupted
    names = ABLATION if arguments.ablation else contributions.INPUTS
    return lambda run, _: AskInputs(names, blank_batch(run.collator, run.tokenizer, ablation_input))
