"""Whether an exported model answers as the run's does, on the run's own rows. Legend: N rows, C classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.console.progress import progress
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.columns import LABELS, PRESENT
from evaluation.export.graphs import Answerer, list_inputs
from evaluation.predict.inference import plan_batches
from evaluation.predict.loaded_run import LoadedRun
from evaluation.scores.scoring import measure_predictions
from evaluation.scores.tasks import TASKS
from evaluation.scores.thresholds import answer_rows
from modeling.choices import DEFAULT_THRESHOLD, FUSIONS
from modeling.errors import InputError

TOLERANCE, NUM_ROWS = 1e-4, 32
# By the names of the ablation's inputs: what is said to be missing.
MISSING = {"full": None, "text_only": "image", "image_only": "text"}
Answers = dict[str, NDArray[Any]]


def check_answers(
    reference: Answerer, exported: Answerer, run: LoadedRun, rows: Dataset, batch_size: int
) -> list[dict[str, Any]]:
    """The largest differences on up to `NUM_ROWS` rows, one by one and in batches, with both, text or picture alone.

    `InputError` where logits differ by more than `TOLERANCE`, or answers at all.
    """
    rows, found = rows.select(range(min(NUM_ROWS, len(rows)))), []
    for name in MISSING if len(FUSIONS[run.config.fusion]) > 1 else ("full",):
        for size in (1, batch_size):
            expected, got = (ask(each, run, rows, size, name) for each in (reference, exported))
            differences = compare(expected, got, run)
            found.append({"input": name, "batch_size": size, "num_rows": len(rows)} | differences)
            # The other way round a nan would pass.
            if not (differences["logits"] <= TOLERANCE and differences["same_answers"] == 1):
                raise InputError(
                    f"The exported model doesn't answer as that of {run.folder.path} does ({name}, batches of {size}: "
                    f"logits differ by up to {differences['logits']:.1e}, of which {TOLERANCE} is allowed, and "
                    f"{differences['same_answers']:.1%} of the answers are equal), so it was not kept; take another "
                    "--export, or another version of torch or onnxruntime."
                )
    return found


def measure_loss(exact: Answerer, coarse: Answerer, run: LoadedRun, rows: Dataset, batch_size: int) -> dict[str, Any]:
    """The scores of both on all rows, and how far and how often they differ."""
    expected, got = ask(exact, run, rows, batch_size), ask(coarse, run, rows, batch_size)
    scores: dict[str, Any] = {}
    for name, each in {"float32": expected, "int8": got}.items():
        figures = measure_predictions(each["probabilities"], each[LABELS], run.label_names)
        scores[name] = {score: figures[score] for score in TASKS[run.config.task].scores}
    return {"num_rows": len(rows)} | compare(expected, got, run) | scores


def ask(answer: Answerer, run: LoadedRun, rows: Dataset, batch_size: int, name: str = "full") -> Answers:
    """Logits and probabilities (N, C) and labels of the rows, in the same order whatever the batches are."""
    reader, names, missing, parts = BatchReader(rows), list_inputs(run), MISSING[name], []
    batches = plan_batches(reader, batch_size)
    title = f"compare: {name}, batches of {batch_size}"
    for numbers in progress(batches, description=title, unit="batches", stays=False):
        batch = run.collator(reader.__getitems__(numbers.tolist()))
        if missing:
            batch[PRESENT[missing]] = torch.zeros_like(batch[PRESENT[missing]])
        with torch.no_grad():
            parts.append(answer(**{name: batch[name] for name in names}) | {LABELS: batch[LABELS]})
    return {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}


def compare(expected: Answers, got: Answers, run: LoadedRun) -> dict[str, float]:
    """The largest differences, and the share of equal answers; numbers of a regression are equal up to `TOLERANCE`."""
    thresholds = np.array(run.config.thresholds or [DEFAULT_THRESHOLD])
    first, second = (answer_rows(each["probabilities"], each[LABELS], thresholds) for each in (expected, got))
    same = np.isclose(first, second, rtol=TOLERANCE, atol=TOLERANCE).reshape(len(first), -1).all(axis=1)
    differences = {key: float(np.abs(expected[key] - got[key]).max()) for key in ("logits", "probabilities")}
    return differences | {"same_answers": float(same.mean())}
