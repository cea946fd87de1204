"""A model over all rows of a data set, on any number of ranks, each row counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_utils.console.progress import progress
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.columns import model_inputs
from data_utils.system.device_copies import fetch
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError

Model = TypeVar("Model", bound=nn.Module)
Batch = dict[str, Tensor]
Outputs = dict[str, Tensor]
Step = Callable[[Model, Batch], Outputs]
Arriving = dict[str, Callable[[], Tensor]]
NOT_FINITE = "its weights or its precision are at fault: take --mixed_precision no, or another run."


def run_inference(
    model: Model,
    dataset: Dataset,
    collator: Callable[..., Batch],
    *,
    batch_size: int,
    accelerator: Accelerator,
    step: Step[Model],
) -> Outputs:
    """Run `step` over every row and give its outputs in the data set's order, the same on every rank.

    Rank r takes the batches r, r + world size, ... of `plan_batches`: a row meets the same neighbours and the same
    padding on 1 rank and on 8, so the figures are the same too. Ranks with a batch less repeat one and discard it.

    Args:
        model: is moved to the accelerator's device, and left in the mode (train or eval) it had.
        dataset: N >= 1 rows, with the column row_index counting from 0.
        collator: the rows' columns -> batch with row_index (B,).
        batch_size: rows per rank and forward.
        accelerator: gives the device, the ranks and the mixed precision.
        step: (model, batch on the device) -> {name: (B, ...)}; returned is {name: (N, ...)} on the CPU.

    Raises:
        RuntimeError: a row was not counted exactly once.
        InputError: the model gave something that is not finite.
    """
    reader = BatchReader(dataset)
    batches = plan_batches(reader, batch_size)
    world_size = accelerator.num_processes
    turns = range(accelerator.process_index, -(-len(batches) // world_size) * world_size, world_size)
    own = [batches[turn % len(batches)].tolist() for turn in turns]
    on_gpu = accelerator.device.type != "cpu"
    loader = DataLoader(reader, batch_sampler=own, collate_fn=collator, pin_memory=on_gpu)
    shown = progress(loader, description="evaluate", unit="batches", is_shown=accelerator.is_main_process, stays=False)
    parts: list[Outputs] = []
    arriving: list[Arriving] = []
    with inference_context(model, accelerator):
        for turn, batch in zip(turns, shown, strict=True):
            outputs = step(model, send_to_device(batch, accelerator.device, non_blocking=True))
            # Received a step late: a GPU computes one batch while the next one is read.
            parts += map(_receive, arriving)
            arriving = [_fetch(outputs | {"row_index": batch["row_index"]})] if turn < len(batches) else []
    parts += map(_receive, arriving)
    return _in_row_order(gather_object(parts), num_rows=len(dataset))


def plan_batches(reader: BatchReader, batch_size: int) -> list[np.ndarray]:
    """The rows of each batch: sorted by length, longest first, and rows of one length (or without any) as they come."""
    lengths = np.zeros(len(reader)) if reader.lengths is None else reader.lengths
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@contextmanager
def inference_context(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Eval mode, no gradients and the accelerator's mixed precision, on the accelerator's device."""
    was_training = model.training
    model.to(accelerator.device).eval()
    try:
        with torch.no_grad(), accelerator.autocast():
            yield
    finally:
        model.train(was_training)


def check_rows_counted_once(row_index: Tensor, num_rows: int) -> None:
    """`RuntimeError` naming rows unless `row_index` (M,), gathered from all ranks, is each of 0..num_rows-1 once."""
    counts = torch.bincount(row_index, minlength=num_rows)
    problems = {
        "missing": (counts[:num_rows] == 0).nonzero().flatten().tolist(),
        "counted more than once": (counts[:num_rows] > 1).nonzero().flatten().tolist(),
        "not in the data set": (counts[num_rows:] > 0).nonzero().flatten().add(num_rows).tolist(),
    }
    found = [
        f"{what}: {', '.join(map(str, rows[:10]))}" + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
        for what, rows in problems.items()
        if rows
    ]
    if found:
        raise RuntimeError(f"The evaluation did not count each of {num_rows} rows once. Rows {'; '.join(found)}.")


def classify(model: SentimentClassifier, batch: Batch) -> Outputs:
    """The step of plain classification: {"probabilities": (B, C)}."""
    inputs = model_inputs(batch)
    return {"probabilities": model.probabilities(model(**inputs).logits)}


def _fetch(outputs: Outputs) -> Arriving:
    """Float32 on its way to the CPU; row numbers stay integers."""
    return {name: fetch(value.float() if value.is_floating_point() else value) for name, value in outputs.items()}


def _receive(arriving: Arriving) -> Outputs:
    return {name: wait().clone() for name, wait in arriving.items()}


def _in_row_order(parts: list[Outputs], *, num_rows: int) -> Outputs:
    merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    row_index = merged.pop("row_index")
    check_rows_counted_once(row_index, num_rows)
    num_bad = int(torch.stack([~value.isfinite().flatten(1).all(1) for value in merged.values()]).any(0).sum())
    if num_bad:
        raise InputError(f"The model's output is not finite for {num_bad} of {num_rows} rows; {NOT_FINITE}")
    order = row_index.argsort()
    return {name: value[order] for name, value in merged.items()}
