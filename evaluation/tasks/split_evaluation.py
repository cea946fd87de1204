"""evaluate.py on labelled rows of the run: score them, take modalities away, or corrupt them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from data_utils.console.screen import show
from data_utils.system.files import write_csv
from evaluation.arguments import ABLATION_INPUTS, EvaluationArguments
from evaluation.predict.ensemble import Ensemble, EvalResult, MakeStep, Part, evaluate_rows
from evaluation.predict.loaded_run import LoadedRun
from evaluation.robustness.report import format_robustness, write_robustness
from evaluation.robustness.robustness import AskCorrupted, summarise_robustness
from evaluation.scores.abstention import format_abstention
from evaluation.scores.contributions import (
    COLUMNS,
    INPUTS,
    compute_contributions,
    format_contributions,
    summarise_contributions,
)
from evaluation.scores.scoring import format_ablation, format_metrics, score_predictions
from evaluation.tasks.ablation import ABLATION, AskInputs, blank_batch, summarise_ablation
from run_files.output import write_json

logger = logging.getLogger(__name__)


def evaluate_split(
    ensemble: Ensemble,
    parts: Sequence[Part],
    split: str,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    abstention: dict[str, Any] | None,
) -> None:
    """Judge a part of the run's rows in the way that is asked for; the main rank writes and prints.

    Args:
        ensemble: the run's models.
        parts: each with its rows of the part.
        split: the part.
        arguments: what is asked for.
        accelerator: of the ranks.
        abstention: what was learned for --abstain.
    """
    step = choose_step(ensemble.first, arguments)
    batch_size = arguments.per_device_eval_batch_size
    result = evaluate_rows(parts, step, batch_size=batch_size, accelerator=accelerator)
    if not accelerator.is_main_process:
        return
    folder, title, names = ensemble.folder, ensemble.title(split), ensemble.first.label_names
    if arguments.ablation:
        ablation_input = arguments.ablation_input or ABLATION_INPUTS[0]
        summary = summarise_ablation(result.outputs, result.labels, names, ablation_input=ablation_input)
        file, text = folder.ablation_file(split), format_ablation(summary, title=title)
    elif arguments.contributions:
        columns = compute_contributions(result.outputs)
        summary = summarise_contributions(columns, names)
        file, text = folder.path / f"contributions_{split}.json", format_contributions(summary, title=title)
        _write_columns(file.with_suffix(".csv"), result, columns, names)
    elif arguments.robustness:
        summary = summarise_robustness(result.outputs, result.labels, names)
        file, text = write_robustness(folder.path, split, summary), format_robustness(summary, title=title)
    else:
        summary = score_predictions(result.outputs["full"], result.labels, names)
        file, text = folder.evaluation_file(split), format_metrics(summary, title=title)
    write_json(file, summary | {"split": split, "mixed_precision": accelerator.mixed_precision})
    show(text, f"\nSaved in {file}.")
    if abstention is not None:
        write_json(folder.path / "abstention.json", abstention)
        show(f"\n{format_abstention(abstention)}")


def choose_step(run: LoadedRun, arguments: EvaluationArguments) -> MakeStep:
    """What the models are asked of their rows; warns where they have hardly learned to answer it."""
    names = ABLATION if arguments.ablation else INPUTS
    ablation_input = arguments.ablation_input or ABLATION_INPUTS[0]
    if not (arguments.ablation or arguments.contributions or arguments.robustness):
        return lambda *_: AskInputs()
    if ablation_input == "mask":
        _warn_of_untrained_masks(run)
    if arguments.robustness:
        return AskCorrupted
    return lambda run, _: AskInputs(names, blank_batch(run.collator, run.tokenizer, ablation_input))


def _warn_of_untrained_masks(run: LoadedRun) -> None:
    """Say so where the vectors that stand for a missing modality were hardly trained."""
    heads_both = run.config.text_tower is not None and run.config.vision_tower is not None
    flags = run.training
    if heads_both and not (flags["modality_dropout"] or flags.get("unimodal_loss_weight")):  # runs of before lack it
        logger.warning(
            "This run was trained with --modality_dropout 0 and without --unimodal_loss_weight, so the vectors that "
            "stand for a missing modality were hardly trained; compare with --ablation_input blank."
        )


def _write_columns(file: Path, result: EvalResult, columns: Mapping[str, Any], names: Sequence[str]) -> None:
    """The contributions row by row."""
    rows = (
        [guid, names[label], names[columns["prediction"][row]], *(f"{columns[name][row]:.6f}" for name in COLUMNS)]
        for row, (guid, label) in enumerate(zip(result.guids, result.labels, strict=True))
    )
    write_csv(file, [["guid", "label", "prediction", *COLUMNS], *rows])
