"""evaluate.py RUN --explain: which words and which regions of the picture moved the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator

from data_utils.console.screen import show
from data_utils.prepare.columns import is_labelled
from evaluation.arguments import EvaluationArguments
from evaluation.predict.ensemble import Ensemble, EvalResult, Part, evaluate_rows
from evaluation.reasons.explaining import explain_rows
from evaluation.reasons.faithfulness import SIDES, format_faithfulness, list_effects, measure_faithfulness
from evaluation.scores.metrics import Floats
from evaluation.scores.thresholds import answer_rows
from evaluation.tasks.ablation import AskInputs
from run_files.explanations import explanations_file, write_explanations

NUM_ROWS = 200


def explain_split(
    ensemble: Ensemble, parts: Sequence[Part], split: str, arguments: EvaluationArguments, accelerator: Accelerator
) -> None:
    """Explain rows of a part, each by the models that may judge it; the main rank writes and prints."""
    batch_size = arguments.per_device_eval_batch_size
    options = {"batch_size": batch_size, "accelerator": accelerator}
    result = evaluate_rows(parts, lambda *_: AskInputs(), **options)
    guids = choose_rows(result, ensemble.thresholds(split), arguments.explain_rows or NUM_ROWS)
    start = time.perf_counter()
    methods = {"hiding": explain_rows(parts, guids, **options)}
    seconds = (time.perf_counter() - start) / len(guids)
    if arguments.explain_gradients:
        from evaluation.reasons.gradients import integrate_rows  # captum isn't there otherwise

        methods["gradients"] = integrate_rows(parts, methods["hiding"], **options)
    faithfulness = measure_faithfulness(parts, methods, **options)
    if not accelerator.is_main_process:
        return
    rows, file = methods["hiding"], explanations_file(ensemble.folder.path, split)
    sizes = {side: np.mean([1 + len(list_effects(row, side)) for row in rows]) for side in SIDES}
    cost = {"texts_per_row": float(sizes["words"]), "pictures_per_row": float(sizes["regions"])}
    figures = {"faithfulness": faithfulness, "cost": cost, "mixed_precision": accelerator.mixed_precision}
    write_explanations(file, rows, split, gradients=methods.get("gradients"), **figures)
    show(
        f"reasons on {ensemble.title(split)}: {len(rows)} rows, misjudged ones first; of each {sizes['words']:.1f} "
        f"texts and {sizes['regions']:.1f} pictures passed the towers of a model, in {seconds:.2f} s",
        f"\n{format_faithfulness(faithfulness)}\n\nSaved in {file}.",
    )


def choose_rows(result: EvalResult, thresholds: Floats | None, count: int) -> list[str]:
    """The guids of the rows to be explained: first the misjudged ones, of either kind the most confident first.

    Of a regression confident are the rows of large errors, all of which count as misjudged.
    """
    values, labels = result.outputs["full"], result.labels
    answers = answer_rows(values, labels, thresholds)
    wrong = is_labelled(labels) & (answers != labels).reshape(len(labels), -1).any(axis=1)
    is_number = labels.dtype.kind != "i" and labels.ndim == 1
    confidence = np.abs(np.nan_to_num(answers - labels)) if is_number else values.max(axis=1)
    order = np.lexsort((-confidence, ~wrong))
    return [result.guids[row] for row in order[:count]]
