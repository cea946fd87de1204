"""Evaluation: prediction against the bare forwards, and the ablation of three inputs against one plain evaluation."""

from __future__ import annotations

from functools import partial

from accelerate import Accelerator

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import Batch, take_turns, time_of
from data_utils.batches import BatchReader
from data_utils.pairs import add_row_index
from evaluation.ablation import run_ablation
from evaluation.inference import classify, inference_context, plan_batches, run_inference
from modeling import SentimentClassifier

ROWS = 256
BATCH_SIZE = 32
PREDICTION_TARGET, ABLATION_TARGET = 0.95, 1.2


def measure(setting: Setting) -> list[Result]:
    """Rows per second of prediction, and seconds of the ablation, on rows of the training part."""
    with setting.assemble() as (trainer, prepared):
        model, collator, accelerator = trainer.model, trainer.data_collator, trainer.accelerator
        num_rows = min(len(prepared.train), 16 if setting.quick else ROWS)
        dataset = add_row_index(prepared.train.select(range(num_rows)))
        options = {"batch_size": BATCH_SIZE, "accelerator": accelerator}
        reader = BatchReader(dataset)
        batches = [collator(reader.__getitems__(rows)) for rows in plan_batches(reader, BATCH_SIZE)]
        plain = partial(run_inference, model, dataset, collator, step=classify, **options)
        ablate = partial(run_ablation, model, dataset, collator, prepared.tokenizer, **options)
        forward = partial(forward_all, model, batches, accelerator)
        sides = [partial(time_of, side) for side in (plain, ablate, forward)]
        plain_seconds, ablation_seconds, ceiling_seconds = take_turns(sides, setting.repeats)
    rates, ceiling = ([num_rows / seconds for seconds in side] for side in (plain_seconds, ceiling_seconds))
    return [
        Result("prediction", rates, "rows/s", "bare forwards", ceiling, target=PREDICTION_TARGET),
        Result(
            "ablation, three inputs",
            ablation_seconds,
            "s",
            "one plain evaluation",
            plain_seconds,
            target=ABLATION_TARGET,
            at_least=False,
        ),
    ]


def forward_all(model: SentimentClassifier, batches: list[Batch], accelerator: Accelerator) -> None:
    """The forwards of a prediction on batches that are in memory."""
    with inference_context(model, accelerator):
        for batch in batches:
            classify(model, {name: value.to(accelerator.device) for name, value in batch.items()})
