"""Whole launches: a second start, a sweep, memory of streamed training and of a GPU.

`python -m benchmarks.launches STEPS FLAGS` is what they launch: train.py up to so many steps.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import train
from benchmarks.report import Result
from benchmarks.runner import time_of
from benchmarks.setting import SMALL_CLIP, Setting, write_clip
from benchmarks.steps import LARGE, card_flags
from data_utils.shards.arguments import ShardArguments
from data_utils.shards.job import write_shards
from data_utils.sources.arguments import DataArguments
from training.engine.trainer import SentimentTrainer
from training.launch.ranks import shut_down_distributed

# File of accelerate_configs/, and flags.
WAYS = {
    "data parallel": ("multi_gpu", ()),
    "data parallel, checkpointing": ("multi_gpu", ("--gradient_checkpointing", "true")),
    "ZeRO-2": ("zero2", ()),
    "ZeRO-3, offload": ("zero3_offload", ()),
}


class _Enough(Exception):
    """All steps are made."""


def main() -> None:
    """Print, as JSON, seconds from the call of train.main to its first step, and the most bytes that it had."""
    import training.experiments.comparison  # noqa: F401 (imported by main otherwise)

    steps, begins, begin, make_step = int(sys.argv[1]), [], time.perf_counter(), SentimentTrainer.training_step

    def note_step(*inputs: Any) -> Tensor:
        begins.append(time.perf_counter() - begin)
        if len(begins) > steps:
            raise _Enough
        return make_step(*inputs)

    with patch.object(SentimentTrainer, "training_step", note_step), suppress(_Enough):
        train.main(sys.argv[2:])
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:  # resident bytes of this process
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = 1024 * int(status["VmHWM"].split()[0])
    print(json.dumps({"seconds": begins[0], "bytes": peak}))
    shut_down_distributed()


def run_steps(setting: Setting, steps: int, *flags: str, launcher: tuple[str, ...] = ()) -> dict[str, float]:
    """What `main` prints in a process of its own."""
    words = (*launcher, "-m", "benchmarks.launches", str(steps), *setting.flags(*flags))
    return json.loads(setting.launch(*words).splitlines()[-1])


def measure_start(setting: Setting) -> Iterator[Result]:
    """A second start of train.py with the shipped defaults; the first one, which prepares the data, isn't counted."""
    values = [run_steps(setting, 0)["seconds"] for _ in range(setting.repeats + 1)][1:]
    note = "from the call of main, all modules of train.py imported, to the begin of the first step"
    yield Result("second start", values, "s", target=3.0, at_least=False, note=note)


def measure_sweep(setting: Setting) -> Iterator[Result]:
    """Seconds of launches of the shipped sweep; the first one, with the pass of the towers, isn't counted."""
    values = [time_sweep(setting) for _ in range(1 + min(setting.repeats, 2))][1:]
    note = "6 heads x 3 seeds x 10 epochs, a launch from its first import to its last table"
    yield Result("sweep of heads", values, "s", target=90.0, at_least=False, note=note)


def measure_sweep_on_card(setting: Setting) -> Iterator[Result]:
    """Seconds of a launch that finds prepared pairs and no features."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        fresh = replace(setting, work_dir=Path(folder))
        with fresh.assemble(*SMALL_CLIP) as (_, prepared):  # prepares the pairs, which isn't counted
            name = f"features of {len(prepared.rows):,} pairs and sweep of heads"
        yield Result(name, [time_sweep(fresh, "--bf16", "true")], "s", target=20.0, at_least=False)


def time_sweep(setting: Setting, *flags: str) -> float:
    """Seconds of one sweep in a process of its own."""
    few_epochs = ("--num_train_epochs", "1") if setting.quick else ()
    words = ("train.py", "--sweep", "configs/sweep_heads.yaml", *setting.flags(*few_epochs, *flags))
    return time_of(partial(setting.launch, *words))


def measure_memory(setting: Setting) -> Iterator[Result]:
    """Memory and time to the first step of streamed training of a tiny CLIP, in turn on few rows and on 100 times them.

    The many shards are links to the few.
    """
    steps, repeats = (20, 1) if setting.quick else (300, 3)
    runs: dict[int, list[dict[str, float]]] = {2: [], 200: []}
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        clip, written = Path(folder) / "clip", Path(folder) / "written"
        write_clip(clip, setting.data_dir, tiny=True)
        shards = ShardArguments(str(written), rows_per_shard=10**6)
        data = DataArguments(data_dir=str(setting.data_dir), cache_dir=str(setting.cache_dir), val_ratio=0)
        rows = write_shards(shards, data)["parts"]["train"][0]["rows"]
        for count in runs:
            (Path(folder) / str(count)).mkdir()
            for number in range(count):
                link = Path(folder) / str(count) / f"train-{number:05d}-of-{count:05d}.parquet"
                link.hardlink_to(written / "train-00000-of-00001.parquet")
        flags = ("--streaming", "true", "--max_steps", str(steps + 1), "--eval_strategy", "no", "--report_to", "none")
        for count in [*runs] * repeats:
            streamed = Setting(Path(folder) / str(count), clip, Path(folder), setting.quick)
            runs[count].append(run_steps(streamed, steps, *flags))
    note = f"{200 * rows:,} rows by {2 * rows:,}, ratio of medians over {repeats} processes each"
    for name, figure in {"resident memory": "bytes", "time to the first step": "seconds"}.items():
        few, many = (median(run[figure] for run in found) for found in runs.values())
        yield Result(name, [many / few], "times", target=1.1, at_least=False, note=note)


def measure_gpu_memory(setting: Setting) -> Iterator[Result]:
    """GiB that torch had allocated at most, on one rank of one; all ways at once, as each has its own memory."""
    with ThreadPoolExecutor(len(WAYS)) as threads:
        yield from threads.map(partial(find_memory, setting), WAYS)


def find_memory(setting: Setting, name: str) -> Result:
    """Of one way: the figure, or why there is none."""
    config, flags = WAYS[name]
    launcher = ("-m", "accelerate.commands.launch", "--num_processes", "1", "--main_process_port", "0")
    try:
        words = (*card_flags(setting, LARGE), *flags, "--report_to", "none")
        found = run_steps(
            setting, 3, *words, launcher=(*launcher, "--config_file", f"accelerate_configs/{config}.yaml")
        )
    except RuntimeError as error:
        return Result(f"{name}, batch {LARGE}", [], "GiB", note=f"failed: {str(error).splitlines()[-1]}")
    return Result(f"{name}, batch {LARGE}", [found["bytes"] / 2**30], "GiB")


if __name__ == "__main__":
    main()
