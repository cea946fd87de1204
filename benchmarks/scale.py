"""Memory and time to the first step of streamed training, on few rows and on many: `python -m benchmarks.scale`."""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from transformers import BertConfig, BertModel, TrainerCallback, ViTConfig, ViTImageProcessorPil, ViTModel

from benchmarks.inputs import TINY
from benchmarks.results import Result
from benchmarks.setting import Setting
from data_utils.prepare.tokens import train_wordpiece
from data_utils.shards.manifest import MANIFEST, VERSION
from data_utils.shards.write import FEATURES
from data_utils.sources.arguments import DEFAULT_LABELS
from training.experiments.training import assemble
from training.flags.parsing import parse_arguments

NUM_ROWS, QUICK_NUM_ROWS = (2_000, 200_000), (200, 1_000)
STEPS, QUICK_STEPS = 300, 20
REPEATS = 3
TARGET = 1.1
ROWS_PER_SHARD = 1000
NUM_PICTURES = 64
MEASURED_EVERY = 10
WORDS = ("good", "bad", "plain", "day", "night", "city", "road", "film", "garden", "match", "coffee", "rain", "sun")


def write_synthetic_shards(folder: Path, num_rows: int) -> None:
    """Parquet shards of texts of random words and small random JPEGs, with their manifest."""
    rng = np.random.default_rng(num_rows)
    pictures = [draw_picture(rng) for _ in range(NUM_PICTURES)]
    count, entries = -(-num_rows // ROWS_PER_SHARD), []
    for number in range(count):
        rows = range(number * ROWS_PER_SHARD, min((number + 1) * ROWS_PER_SHARD, num_rows))
        labels = [DEFAULT_LABELS[row % len(DEFAULT_LABELS)] for row in rows]
        columns = {
            "guid": [str(row) for row in rows],
            "text": [" ".join(rng.choice(WORDS, 8)) for _ in rows],
            "label": labels,
            "image": [{"bytes": pictures[row % NUM_PICTURES], "path": f"{row}.jpg"} for row in rows],
        }
        path = folder / f"train-{number:05d}-of-{count:05d}.parquet"
        table = pa.table(columns, schema=FEATURES.arrow_schema)
        pq.write_table(table, path, row_group_size=64, compression="none")
        counts = {label: labels.count(label) for label in DEFAULT_LABELS}
        entries.append({"file": path.name, "rows": len(rows), "bytes": path.stat().st_size, "labels": counts})
    manifest = {"version": VERSION, "format": "parquet", "complete": True, "parts": {"train": entries}}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def draw_picture(rng: np.random.Generator) -> bytes:
    """A JPEG of 64 x 48 random pixels."""
    target = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(target, "JPEG", quality=75)
    return target.getvalue()


def write_encoders(folder: Path) -> None:
    """A tiny BERT with its tokenizer and a tiny ViT, random: as after a download, nothing is trained at the start."""
    train_wordpiece(WORDS, vocab_size=200, max_length=16).save_pretrained(folder / "text")
    BertModel(BertConfig(vocab_size=200, max_position_embeddings=16, **TINY)).save_pretrained(folder / "text")
    ViTModel(ViTConfig(image_size=32, patch_size=16, **TINY)).save_pretrained(folder / "image")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "image")


def read_memory() -> dict[str, int]:
    """Resident bytes of this process: all, and of them those of no file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak": "VmRSS", "peak_anonymous": "RssAnon"}
    return {name: 1024 * int(lines[field].split()[0]) for name, field in names.items()}


class Meter(TrainerCallback):
    """Notes the moment of the first update and the most memory after every few."""

    def __init__(self) -> None:
        self.begin, self.core_begin = time.perf_counter(), time.process_time()
        self.found: dict[str, float] = {"peak": 0, "peak_anonymous": 0}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        if state.global_step == 1:
            self.found["first_step_seconds"] = time.perf_counter() - self.begin
            # The processor's own time, in which other jobs on the machine have no part.
            self.found["first_step_core_seconds"] = time.process_time() - self.core_begin
        if state.global_step % MEASURED_EVERY == 0:
            self.found |= {name: max(value, self.found[name]) for name, value in read_memory().items()}


def train_once(folder: Path, encoders: Path, steps: int) -> dict[str, float]:
    """Train a tiny model on shards in this very process; seconds count from when all is imported."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as output, redirect_stdout(sys.stderr):
        flags = ["--streaming", "--data_dir", str(folder), "--output_dir", output, "--cache_dir", f"{output}/cache"]
        flags += ["--model", "vilbert", "--text_name", f"{encoders}/text", "--vision_name", f"{encoders}/image"]
        flags += ["--max_steps", str(steps), "--disable_tqdm", "true", "--report_to", "none", "--logging_steps", "100"]
        flags += ["--save_strategy", "no", "--eval_strategy", "no"]
        trainer, _, _ = assemble(*parse_arguments(flags))
        trainer.add_callback(meter)
        trainer.train()
    return meter.found


def measure_sizes(num_rows: Sequence[int], *, steps: int, repeats: int) -> dict[str, Any]:
    """Few and many rows, each in processes of its own, in turn.

    Args:
        num_rows: few, many.
        steps: updates of 8 rows.
        repeats: processes per number of rows.

    Returns:
        By number of rows the medians of seconds and bytes; and the ratios of many to few.
    """
    runs: dict[int, list[dict[str, float]]] = {rows: [] for rows in num_rows}
    with tempfile.TemporaryDirectory() as parent:
        encoders = Path(parent, "encoders")
        write_encoders(encoders)
        for rows in num_rows:
            Path(parent, str(rows)).mkdir()
            write_synthetic_shards(Path(parent, str(rows)), rows)
        for rows in [*num_rows] * repeats:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                runs[rows].append(pool.submit(train_once, Path(parent, str(rows)), encoders, steps).result())
    medians = {rows: {name: median(run[name] for run in found) for name in found[0]} for rows, found in runs.items()}
    few, many = medians.values()
    seconds = {rows: [run["first_step_seconds"] for run in found] for rows, found in runs.items()}
    spread = {rows: [min(values), max(values)] for rows, values in seconds.items()}
    ratios = {name: many[name] / few[name] for name in few}
    return {"steps": steps, "medians": medians, "first_step_spread": spread, "ratios": ratios}


def measure(setting: Setting) -> list[Result]:
    """The ratios of many rows to few; each value is one of medians already."""
    few, many = QUICK_NUM_ROWS if setting.quick else NUM_ROWS
    steps, repeats = (QUICK_STEPS, 1) if setting.quick else (STEPS, min(setting.repeats, REPEATS))
    ratios = measure_sizes((few, many), steps=steps, repeats=repeats)["ratios"]
    note = f"{many:,} rows by {few:,}, ratio of medians over {repeats} processes each"
    names = {"resident memory": "peak", "time to the first step": "first_step_seconds"}
    judged = {"target": TARGET, "at_least": False, "note": note}
    return [Result(name, [ratios[figure]], "times", **judged) for name, figure in names.items()]


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of 8 rows")
    print(json.dumps(measure_sizes(NUM_ROWS, steps=parser.parse_args().steps, repeats=REPEATS), indent=1))


if __name__ == "__main__":
    main()
