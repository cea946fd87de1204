"""Evaluation: prediction against the bare forwards and of more rows, and the ablation of three inputs against one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from benchmarks import features
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import Batch, compare, take_turns, time_of
from data_utils.prepare.batches import BatchReader, Columns
from data_utils.prepare.pairs import add_row_index
from data_utils.stream.part_cache import FEATURES
from evaluation.predict.inference import classify, inference_context, plan_batches, run_inference
from evaluation.predict.joint_models import JointModels
from evaluation.tasks.ablation import ABLATION, AskInputs, blank_batch
from modeling.classifier import SentimentClassifier

ROWS = 256
BATCH_SIZE = 32
PREDICTION_TARGET, ABLATION_TARGET, GROWTH_TARGET = 0.95, 1.2, 0.9
MANY_BATCHES, GROWTH = 2000, 8
GPU_ROWS, GPU_BATCH_SIZE, GPU_PRECISION = 3600, 256, ("--bf16", "true")


def measure(setting: Setting) -> list[Result]:
    """Prediction and ablation, and what prediction costs around its forwards as rows become more."""
    return [*measure_rows(setting), measure_growth(setting)]


def measure_gpu(setting: Setting) -> Iterator[Result]:
    """The pass of frozen towers, prediction and ablation, with more rows in larger batches."""
    yield from features.measure(setting, *GPU_PRECISION, num_rows=GPU_ROWS)
    yield from measure_rows(setting, *GPU_PRECISION, num_rows=GPU_ROWS, batch_size=GPU_BATCH_SIZE)


def measure_rows(setting: Setting, *flags: str, num_rows: int = ROWS, batch_size: int = BATCH_SIZE) -> list[Result]:
    """Rows per second of prediction, and seconds of the ablation, on rows of the training part."""
    with setting.assemble(*flags) as (trainer, prepared):
        model, collator, accelerator = trainer.model, trainer.data_collator, trainer.accelerator
        num_rows = min(len(prepared.train), 16 if setting.quick else num_rows)
        dataset = add_row_index(prepared.train.select(range(num_rows)))
        options = {"batch_size": batch_size, "accelerator": accelerator}
        reader = BatchReader(dataset)
        batches = [collator(reader.__getitems__(rows)) for rows in plan_batches(reader, batch_size)]
        plain = partial(run_inference, model, dataset, collator, step=classify, **options)
        blank, joint = blank_batch(collator, prepared.tokenizer), JointModels([model])

        def ablate() -> None:
            run_inference(joint, dataset, collator, step=AskInputs(ABLATION, blank), **options)

        forward = partial(forward_all, model, batches, accelerator)
        sides = [partial(time_of, side) for side in (plain, ablate, forward)]
        plain_seconds, ablation_seconds, ceiling_seconds = take_turns(sides, setting.repeats)
    rates, ceiling = ([num_rows / seconds for seconds in side] for side in (plain_seconds, ceiling_seconds))
    note = f"{num_rows} rows in batches of {batch_size}, precision {trainer.args.mixed_precision}"
    ablation = ("ablation, three inputs", ablation_seconds, "s", "one plain evaluation", plain_seconds)
    return [
        Result("prediction", rates, "rows/s", "bare forwards", ceiling, target=PREDICTION_TARGET, note=note),
        Result(*ablation, target=ABLATION_TARGET, at_least=False),
    ]


def measure_growth(setting: Setting) -> Result:
    """Batches per second around the forwards, of many batches and of few."""
    many = 4 * GROWTH if setting.quick else MANY_BATCHES
    with setting.assemble() as (trainer, _):
        options = (trainer.data_collator, trainer.accelerator)
        sides = [partial(rate_batches, count, *options) for count in (many, many // GROWTH)]
        about = (f"batches around the forwards, {many}", "batches/s", f"of {many // GROWTH}")
        return compare(*about, sides, setting.repeats, target=GROWTH_TARGET)


def forward_all(model: SentimentClassifier, batches: list[Batch], accelerator: Accelerator) -> None:
    """The forwards of a prediction on batches that are in memory."""
    with inference_context(model, accelerator):
        for batch in batches:
            classify(model, {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()})


def rate_batches(num_batches: int, collator: Callable[[Columns], Batch], accelerator: Accelerator) -> float:
    """Batches per second of a prediction of so many, of one row without a picture, without its forwards."""
    row = {"guid": "", "label": 0, "text": "", "input_ids": [0], "image": None}
    row |= {"text_present": True, "image_present": False}
    rows = Dataset.from_dict({name: [value] * num_batches for name, value in row.items()}, features=FEATURES)

    def skip(model: nn.Module, batch: Batch) -> Batch:
        return {"probabilities": torch.zeros(len(batch["row_index"]), 3)}

    options = {"batch_size": 1, "accelerator": accelerator, "step": skip}
    dataset = add_row_index(rows)
    return num_batches / time_of(partial(run_inference, nn.Identity(), dataset, collator, **options))
