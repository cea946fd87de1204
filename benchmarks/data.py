"""The way of the data: preparing pairs, the training loader alone, and whether a card gets its batches in time."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import load_dataset
from PIL import Image
from pyarrow.csv import WriteOptions, write_csv
from pyarrow.parquet import write_table as write_parquet
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.report import Result
from benchmarks.runner import ENDLESS, synchronize, take_turns, time_of, watch_loop
from benchmarks.setting import SMALL_CLIP, Setting, read_guids
from benchmarks.steps import LARGE, SMALL, card_flags, step_barely
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import judge_rows
from data_utils.tables.opening import open_source
from modeling.pictures import PictureSettings
from training.engine.trainer import SentimentTrainer

# The squashed square of CLIP's own processor.
PICTURE = PictureSettings(image_size=224, shortest_edge=224, resize_mode="squash", resample=3)
BATCH_64 = ("--per_device_train_batch_size", "64")
WORKERS = ("--dataloader_num_workers", "2", "--dataloader_persistent_workers", "true")


def measure_preparation(setting: Setting) -> Iterator[Result]:
    """Pairs per second up to the table of pairs with an empty cache, against all cores that only decode and resize."""
    files = (setting.data_dir / "data" / f"{guid}.jpg" for guid in read_guids(setting.data_dir))
    pictures = [file for file in files if file.exists()]
    workers = DataArguments(data_dir=str(setting.data_dir)).num_workers()

    def prepare() -> float:
        with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
            data = DataArguments(data_dir=str(setting.data_dir), cache_dir=folder)
            load = partial(load_pairs, open_source(data), data=data, picture=PICTURE)
            return len(pictures) / time_of(load)

    def decode() -> float:
        with get_context("fork").Pool(workers) as pool:  # spawned ones would import everything first
            return len(pictures) / time_of(partial(pool.map, decode_plainly, pictures, chunksize=16))

    # More turns than elsewhere: the sides are a few hundredths apart, and turns as much.
    prepared, bare = take_turns([prepare, decode], 3 * setting.repeats)
    note = f"{len(pictures)} pairs, {workers} processes; preparing also reads and cleans texts and writes the cache"
    yield Result("prepared pairs", prepared, "pairs/s", "bare decoding and resizing", bare, target=0.75, note=note)


def decode_plainly(path: Path) -> None:
    """What every preparation has to do at least."""
    with Image.open(path) as image:
        np.asarray(image.convert("RGB").resize((PICTURE.image_size, PICTURE.image_size), PICTURE.resample))


def measure_reading(setting: Setting) -> Iterator[Result]:
    """Seconds from a table's file until its rows are judged, against `datasets`, which judges none; caches are new."""
    for kind, full in {"csv": 100_000, "parquet": 2_000}.items():
        num_rows = 200 if setting.quick else full
        with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
            path = Path(folder) / f"rows.{kind}"
            write_rows(path, setting, num_rows)
            sides = [partial(with_new_cache, read, path) for read in (judge_table, load_plainly)]
            ours, theirs = take_turns(sides, setting.repeats)
        name = f"{num_rows:,} rows of {'CSV, paths' if kind == 'csv' else 'Parquet, bytes'} of pictures"
        yield Result(name, ours, "s", "datasets.load_dataset", theirs, target=1.2, at_least=False)


def write_rows(path: Path, setting: Setting, num_rows: int) -> None:
    """The pairs again and again, with pictures by their paths, or in Parquet by their bytes."""
    rows, files = range(num_rows), [*islice(cycle((setting.data_dir / "data").glob("*.jpg")), num_rows)]
    texts = {file: file.with_suffix(".txt").read_text(encoding="utf-8", errors="replace") for file in {*files}}
    columns: dict[str, list[Any]] = {"text": [texts[file] for file in files], "label": ["ab"[n % 2] for n in rows]}
    columns |= {"id": [f"r{n}" for n in rows], "image": list(map(str, files))}
    if path.suffix == ".csv":
        write_csv(pa.table(columns), path, WriteOptions(quoting_style="needed"))
    else:
        write_parquet(pa.table(columns | {"image": [file.read_bytes() for file in files]}), path)


def with_new_cache(read: Callable[[Path, str], object], path: Path) -> float:
    """Seconds of a reading."""
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        return time_of(partial(read, path, cache))


def judge_table(path: Path, cache: str) -> None:
    """As every training begins."""
    data = DataArguments(data=[str(path)], cache_dir=cache, labels=["a", "b"])
    source = open_source(data)
    judge_rows(source.rows(["a", "b"]), source.name, labels=["a", "b"], quarantine=Quarantine(), has_files=False)


def load_plainly(path: Path, cache: str) -> None:
    """As `datasets` reads a file, into a cache of its own."""
    load_dataset(path.suffix[1:], data_files=str(path), cache_dir=cache)


def measure_loader(setting: Setting) -> Iterator[Result]:
    """Samples per second of Trainer's own loader; the model beside it is small and never called."""

    def rate(trainer: SentimentTrainer, loader: DataLoader) -> list[float]:
        return take_turns([partial(read_all, trainer, loader)], setting.repeats)[0]

    with setting.assemble(*SMALL_CLIP, *BATCH_64) as (trainer, _):
        warm = trainer.get_train_dataloader()
        yield Result("warm cache", rate(trainer, warm), "samples/s", target=4000)
        small = DataLoader(warm.dataset, 8, shuffle=True, collate_fn=trainer.data_collator)
        yield Result("warm cache, batch 8", rate(trainer, small), "samples/s")
    with setting.assemble(*SMALL_CLIP, *BATCH_64, *WORKERS) as (trainer, _):
        rates = rate(trainer, trainer.get_train_dataloader())
        yield Result("warm cache, 2 workers", rates, "samples/s", note="each batch is copied to this process")
    cold = []
    for _ in range(setting.repeats):
        drop_from_memory(setting.cache_dir)
        with setting.assemble(*SMALL_CLIP, *BATCH_64) as (trainer, _):
            cold.append(read_all(trainer, trainer.get_train_dataloader()))
    note = "the cache's files were dropped from memory (posix_fadvise) before every turn, and opened anew"
    yield Result("cold cache", cold, "samples/s", note=note)


def read_all(trainer: SentimentTrainer, loader: DataLoader, passes: int = 1) -> float:
    """Rows per second from the cache to the device, as the training gets them; a byte of every page is looked at."""
    rows = []

    def run() -> None:
        for _ in range(passes):
            batches = iter(loader)
            while found := trainer.get_batch_samples(batches, 1, trainer.args.device)[0]:
                found[0]["pixel_values"].view(-1)[::4096].max()
                rows.append(len(found[0]["labels"]))

    seconds = time_of(run)
    return sum(rows) / seconds


def drop_from_memory(cache: Path) -> None:
    """Write the cache to the disk and drop it from memory, as far as no process maps it."""
    for file in cache.glob("*/*.arrow"):
        with file.open("rb") as opened:
            os.fsync(opened)
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_feeding(setting: Setting) -> Iterator[Result]:
    """Pictures per second to the card; share of the time in which it waits, and synchronisations per update."""
    sizes = (LARGE,) if setting.quick else (LARGE, SMALL)
    for rows in sizes:
        with setting.assemble(*SMALL_CLIP, *card_flags(setting, rows)) as (trainer, _):
            feed = partial(read_all, trainer, trainer.get_train_dataloader(), setting.steps(5))
            (rates,) = take_turns([feed], setting.repeats)
        yield Result(f"pictures to the card, batch {rows}", rates, "pictures/s", target=20_000)
    for rows in sizes:
        yield from watch_card(setting, rows)


def watch_card(setting: Setting, rows: int) -> Iterator[Result]:
    """Waiting and synchronisations of train.py's loop, and those of bare steps, which wait for no batch."""
    steps, found = setting.steps(10), list[tuple[int, float]]()
    with setting.assemble(*ENDLESS, *card_flags(setting, rows)) as (trainer, _):
        watch_loop(trainer, partial(step_barely, trainer), partial(watch, found), steps=steps, turns=2)
    _, _, (waits, share), (bare_waits, bare_share) = found  # the first turns aren't counted
    note = f"over {steps} updates, by torch.cuda.set_sync_debug_mode; of bare steps {bare_waits / steps:g}"
    yield Result(f"synchronisations per update, batch {rows}", [waits / steps], "", note=note)
    note = f"time without a kernel from the first to the last one of {steps} updates, by torch's profiler, which "
    note += f"slows their launch; of bare steps {bare_share:.3g} %"
    yield Result(f"waiting of the card, batch {rows}", [share], "%", target=3.0, at_least=False, note=note)


@contextmanager
def watch(found: list[tuple[int, float]]) -> Iterator[None]:
    """Add to `found` how often the host waits for the card within the context, and how long the card for the host (%).

    From the first kernel to the last one. A copy from or to the host is no work: whoever waits for it waits.
    """
    on_card = torch.cuda.is_available()
    device, activity = ("CUDA", ProfilerActivity.CUDA) if on_card else ("CPU", ProfilerActivity.CPU)
    synchronize()
    with profile(activities=[activity]) as profiler, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_card:
            torch.cuda.set_sync_debug_mode("warn")
        yield
        if on_card:
            torch.cuda.set_sync_debug_mode("default")
        synchronize()
    waits = sum("synchronizing CUDA operation" in str(each.message) for each in caught)
    events = [each for each in profiler.events() if each.device_type.name == device and not each.is_user_annotation]
    kernels = [each for each in events if not each.name.startswith(("Memcpy HtoD", "Memcpy DtoH"))]
    found.append((waits, 100 * find_idle_share([(each.time_range.start, each.time_range.end) for each in kernels])))


def find_idle_share(spans: list[tuple[float, float]]) -> float:
    """The share of the time from the first begin to the last end that no span covers."""
    begin = reached = min(spans)[0]
    idle = 0.0
    for start, end in sorted(spans):
        idle, reached = idle + max(0.0, start - reached), max(reached, end)
    return idle / (reached - begin)
