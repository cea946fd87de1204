"""The pass of frozen towers that fills the cache of features, against the bare forwards of both towers."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import Batch, compare, time_of
from data_utils.prepare.batches import BatchReader
from evaluation.predict.inference import inference_context, plan_batches
from modeling.classifier import SentimentClassifier
from training.data.features import cache_features

# Enough that what a pass costs once (hashing the weights, joining its columns to the rows) counts about as in use.
ROWS = 1024
BATCH_SIZE = 64
TARGET = 0.9


def measure(setting: Setting, *flags: str, num_rows: int = ROWS) -> list[Result]:
    """Rows per second of the pass with an empty cache, and of the towers on batches in memory, in one precision."""
    with setting.assemble("--freeze", "both", "--cache_features", "false", *flags) as (trainer, prepared):
        model, args = trainer.model, trainer.args
        rows = np.arange(min(len(prepared.rows), 16 if setting.quick else num_rows))
        reader = BatchReader(prepared.rows.select(rows).add_column("row_index", rows))
        batches = [trainer.data_collator(reader.__getitems__(batch)) for batch in plan_batches(reader, BATCH_SIZE)]

        def fill() -> float:
            with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
                options = {"cache_features": True, "rows": rows, "cache_dir": Path(folder), "args": args}
                run = partial(cache_features, model, prepared.rows, trainer.data_collator, **options)
                return len(rows) / time_of(run)

        def forward() -> float:
            return len(rows) / time_of(partial(encode_all, model, batches, trainer.accelerator))

        note = f"both towers over {len(rows)} rows, precision {args.mixed_precision}"
        about = ("features pass", "rows/s", "bare forwards")
        return [compare(*about, [fill, forward], setting.repeats, target=TARGET, note=note)]


def encode_all(model: SentimentClassifier, batches: list[Batch], accelerator: Accelerator) -> None:
    """The forwards of both towers on batches that are in memory."""
    with inference_context(model, accelerator):
        for batch in batches:
            batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
            model.encode("text", batch)
            model.encode("image", batch)
