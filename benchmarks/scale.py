"""Memory and time to the first step of streamed training, on few rows and on many: `python -m benchmarks.scale`."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from transformers import BertConfig, BertModel, TrainerCallback, ViTConfig, ViTImageProcessorPil, ViTModel

from data_utils.prepare.tokens import train_wordpiece
from data_utils.shards.manifest import MANIFEST, VERSION
from data_utils.shards.write import FEATURES
from data_utils.sources.arguments import DEFAULT_LABELS

ROOT = Path(__file__).resolve().parent.parent
ROWS_PER_SHARD = 1000
NUM_PICTURES = 64
MEASURED_EVERY = 10
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
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
    """Resident bytes of this process and its children: all, anonymous memory, pages of files, shared memory."""
    names = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "files", "RssShmem": "shared"}
    sums = dict.fromkeys(names.values(), 0)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ("self", *children):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in names:
                sums[names[name]] += int(value.split()[0]) * 1024
    return sums


class Meter(TrainerCallback):
    """Notes the moment of the first update and the memory after every few."""

    def __init__(self) -> None:
        self.begin, self.core_begin = time.perf_counter(), time.process_time()
        self.first_step = self.core_first_step = float("nan")
        self.memory: list[dict[str, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        if state.global_step == 1:
            self.first_step = time.perf_counter() - self.begin
            self.core_first_step = time.process_time() - self.core_begin
        if state.global_step % MEASURED_EVERY == 0:
            self.memory.append(read_memory())


def train_once(folder: str, encoders: str, *, steps: int, num_workers: int) -> dict[str, Any]:
    """Train a tiny model on shards in this very process; seconds count from when all is imported."""
    from training.experiments.training import assemble
    from training.flags.parsing import parse_arguments

    meter = Meter()
    with tempfile.TemporaryDirectory() as output:
        flags = [*("--streaming", "--data_dir", folder, "--output_dir", output, "--cache_dir", f"{output}/cache")]
        flags += ["--model", "vilbert", "--text_name", f"{encoders}/text", "--vision_name", f"{encoders}/image"]
        flags += ["--max_steps", str(steps), "--dataloader_num_workers", str(num_workers), "--disable_tqdm", "true"]
        flags += ["--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none", "--logging_steps", "100"]
        trainer, _, _ = assemble(*parse_arguments(flags))
        trainer.add_callback(meter)
        trainer.train()
    return {
        "first_step_seconds": meter.first_step,
        "first_step_core_seconds": meter.core_first_step,
        "peak": {name: max(sample[name] for sample in meter.memory) for name in meter.memory[0]},
        "end": meter.memory[-1],
    }


def measure(
    num_rows: tuple[int, int] = (2_000, 200_000), *, steps: int = 300, num_workers: int = 0, repeats: int = 3
) -> dict[str, Any]:
    """Few and many rows, each in processes of its own; medians over `repeats`, and the ratio of many to few.

    Args:
        num_rows: few, many.
        steps: updates of 8 rows.
        num_workers: loader processes; their memory counts too, pages shared with them once per process.
        repeats: processes per number of rows, in turn.

    Returns:
        By number of rows first_step_seconds, peak and end (bytes); ratios first_step,
        first_step_core, peak, end, peak_anonymous.
    """
    runs: dict[int, list[dict[str, Any]]] = {rows: [] for rows in num_rows}
    with tempfile.TemporaryDirectory() as parent:
        for rows in num_rows:
            Path(parent, str(rows)).mkdir()
            write_synthetic_shards(Path(parent, str(rows)), rows)
        write_encoders(Path(parent, "encoders"))
        for _ in range(repeats):
            for rows in num_rows:
                words = ["--folder", f"{parent}/{rows}", "--encoders", f"{parent}/encoders"]
                words += ["--steps", str(steps), "--num_workers", str(num_workers)]
                runs[rows].append(_run_child(words))
    found = {rows: _median(each) for rows, each in runs.items()}
    few, many = (found[rows] for rows in num_rows)
    ratios = {
        "first_step": many["first_step_seconds"] / few["first_step_seconds"],
        "first_step_core": many["first_step_core_seconds"] / few["first_step_core_seconds"],
        "peak": many["peak"]["all"] / few["peak"]["all"],
        "end": many["end"]["all"] / few["end"]["all"],
        "peak_anonymous": many["peak"]["anonymous"] / few["peak"]["anonymous"],
    }
    return {"steps": steps, "num_workers": num_workers, "repeats": repeats, "runs": found, "ratios": ratios}


def _run_child(words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def of(name: str) -> dict[str, float]:
        return {kind: float(np.median([run[name][kind] for run in runs])) for kind in runs[0][name]}

    seconds = [run["first_step_seconds"] for run in runs]
    return {
        "first_step_seconds": float(np.median(seconds)),
        "first_step_spread": [min(seconds), max(seconds)],
        # The processor's own time, in which other jobs on the machine have no part.
        "first_step_core_seconds": float(np.median([run["first_step_core_seconds"] for run in runs])),
        "peak": of("peak"),
        "end": of("end"),
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_rows", type=int, nargs=2, default=[2_000, 200_000], metavar=("FEW", "MANY"))
    parser.add_argument("--steps", type=int, default=300, help="updates of 8 rows")
    parser.add_argument("--num_workers", type=int, default=0, help="loader processes")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each number of rows")
    parser.add_argument("--folder", help="train once on the shards in this folder (what the others are started with)")
    parser.add_argument("--encoders", help="with --folder: the tiny encoders")
    options = parser.parse_args()
    if options.folder:
        print(
            json.dumps(
                train_once(options.folder, options.encoders, steps=options.steps, num_workers=options.num_workers)
            )
        )
    else:
        few, many = options.num_rows
        result = measure((few, many), steps=options.steps, num_workers=options.num_workers, repeats=options.repeats)
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
