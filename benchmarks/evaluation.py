"""Evaluation against the bare forwards, the ablation of three inputs against one, and the pass of frozen towers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset

from benchmarks.report import Result
from benchmarks.runner import take_turns, time_of
from benchmarks.setting import Setting
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from evaluation.predict.inference import Batch, classify, inference_context, plan_batches, run_inference
from evaluation.tasks.ablation import ABLATION, AskInputs, blank_batch
from modeling.batch import Inputs
from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels
from training.data.features import cache_features


def measure_gpu(setting: Setting) -> Iterator[Result]:
    """The pass of frozen towers, prediction and ablation, with more rows in larger batches."""
    yield from measure_features(setting, "--bf16", "true", num_rows=3600)
    yield from measure_prediction(setting, "--bf16", "true", num_rows=3600, batch_size=256)


def measure_prediction(setting: Setting, *flags: str, num_rows: int = 256, batch_size: int = 32) -> Iterator[Result]:
    """Rows per second of prediction, and seconds of the ablation."""
    with setting.assemble(*flags) as (trainer, prepared):
        model, collator, accelerator = trainer.model, trainer.data_collator, trainer.accelerator
        dataset = prepared.train.select(range(_choose(setting, num_rows, prepared.train)))
        batches, joint = _read_batches(dataset, collator, batch_size), JointModels([model])
        run = partial(run_inference, dataset=dataset, collator=collator, batch_size=batch_size, accelerator=accelerator)
        blank = blank_batch(collator, prepared.tokenizer)
        sides: list[Callable[[], object]] = [
            partial(run, model, step=classify),
            lambda: run(joint, step=AskInputs(ABLATION, blank)),
            partial(_forward_all, model, batches, accelerator, classify),
        ]
        plain, ablation, bare = take_turns([partial(time_of, side) for side in sides], setting.repeats)
        note = f"{len(dataset)} rows in batches of {batch_size}, precision {trainer.args.mixed_precision}"
    rates, other_rates = ([len(dataset) / seconds for seconds in side] for side in (plain, bare))
    yield Result("prediction", rates, "rows/s", "bare forwards", other_rates, target=0.95, note=note)
    about = ("ablation, three inputs", ablation, "s", "one plain evaluation", plain)
    yield Result(*about, target=1.2, at_least=False)


def measure_features(setting: Setting, *flags: str, num_rows: int = 1024) -> Iterator[Result]:
    """Rows per second of the pass that fills the cache of features, and of both towers on batches in memory.

    So many rows that what a pass costs once (hashing the weights, joining its columns) counts about as in use.
    """
    with setting.assemble("--freeze", "both", "--cache_features", "false", *flags) as (trainer, prepared):
        model, collator = trainer.model, trainer.data_collator
        rows = range(_choose(setting, num_rows, prepared.rows))
        batches = _read_batches(add_row_index(prepared.rows.select(rows)), collator, 64)

        def fill() -> float:
            with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
                options = {"cache_features": True, "rows": rows, "cache_dir": Path(folder), "args": trainer.args}
                return len(rows) / time_of(partial(cache_features, model, prepared.rows, collator, **options))

        forward = partial(_forward_all, model, batches, trainer.accelerator, _run_towers)
        passes, bare = take_turns([fill, lambda: len(rows) / time_of(forward)], setting.repeats)
        note = f"both towers over {len(rows)} rows, precision {trainer.args.mixed_precision}"
    yield Result("features pass", passes, "rows/s", "bare forwards", bare, target=0.9, note=note)


def _choose(setting: Setting, num_rows: int, dataset: Dataset) -> int:
    return min(len(dataset), 16 if setting.quick else num_rows)


def _read_batches(dataset: Dataset, collator: PairCollator, batch_size: int) -> list[Batch]:
    reader = BatchReader(dataset)
    return [collator(reader.__getitems__(rows.tolist())) for rows in plan_batches(reader, batch_size)]


def _forward_all(
    model: SentimentClassifier,
    batches: list[Batch],
    accelerator: Accelerator,
    step: Callable[[SentimentClassifier, Batch], object],
) -> None:
    with inference_context(model, accelerator):
        for batch in batches:
            step(model, send_to_device(batch, accelerator.device, non_blocking=True))


def _run_towers(model: SentimentClassifier, batch: Batch) -> None:
    for kind in ("text", "image"):
        model.encode(kind, cast(Inputs, batch))
