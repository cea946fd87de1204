"""The training loader alone: from the warm cache, from a cold one, and from the JPEG files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from benchmarks.results import Result
from benchmarks.setting import PICTURE, Setting
from benchmarks.turns import take_turns, time_of
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.loading import load_picture_row
from data_utils.prepare.pair_files import FileState
from data_utils.sources.arguments import MAX_PIXELS
from training.engine.trainer import SentimentTrainer

TARGET = 4000
BATCH = ("--per_device_train_batch_size", "64")
WORKERS = ("--dataloader_num_workers", "2", "--dataloader_persistent_workers", "true")
TINY_CLIP = (
    *("--from_scratch", "--fusion", "early"),
    *("--text_config", '{"num_hidden_layers": 1}', "--vision_config", '{"num_hidden_layers": 1}'),
)


def measure(setting: Setting) -> list[Result]:
    """Samples per second of Trainer's own loader; the model beside it is small and never called."""

    def rate(*loaders: DataLoader) -> list[list[float]]:
        return take_turns([partial(read_all, loader) for loader in loaders], setting.repeats)

    with setting.assemble(*TINY_CLIP, *BATCH) as (trainer, _):
        warm, collator = trainer.get_train_dataloader(), trainer.data_collator
        files = DataLoader(JpegRows(trainer, setting.data_dir), 64, collate_fn=collator, num_workers=2)
        cached, decoded = rate(warm, files)
        (batch_8,) = rate(DataLoader(warm.dataset, 8, shuffle=True, collate_fn=collator))
    with setting.assemble(*TINY_CLIP, *BATCH, *WORKERS) as (trainer, _):
        (workers,) = rate(trainer.get_train_dataloader())
    cold = [read_cold(setting) for _ in range(setting.repeats)]
    unit, decoding = "samples/s", "the other side decodes each picture when its row is read, in 2 processes"
    dropping = "the cache's files were dropped from memory (posix_fadvise) before every turn, and opened anew"
    return [
        Result("warm cache", cached, unit, target=TARGET),
        Result("warm cache, by no cache", cached, unit, "from JPEG", decoded, note=decoding),
        Result("warm cache, batch 8", batch_8, unit),
        Result("warm cache, 2 workers", workers, unit, note="each batch is copied to this process"),
        Result("cold cache", cold, unit, note=dropping),
    ]


class JpegRows(Dataset):
    """The training rows without a cache: the picture is decoded when a row is read."""

    def __init__(self, trainer: SentimentTrainer, data_dir: Path) -> None:
        self.rows = BatchReader(trainer.train_dataset)
        guids = trainer.train_dataset["guid"][:]
        self.files = [(guid, FileState(str(data_dir / "data" / f"{guid}.jpg"), "file")) for guid in guids]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row] | {"image": load_picture_row(*self.files[row], PICTURE, MAX_PIXELS)["image"]}


def read_all(loader: Iterable[dict[str, Any]]) -> float:
    """Samples per second of one pass; one byte of every page of the pictures is looked at."""
    rows = []

    def run() -> None:
        for batch in loader:
            batch["pixel_values"].view(-1)[::4096].max()
            rows.append(len(batch["labels"]))

    seconds = time_of(run)
    return sum(rows) / seconds


def read_cold(setting: Setting) -> float:
    """Samples per second of one pass over a cache that is on disk only."""
    drop_from_memory(sorted(setting.cache_dir.glob("*/*.arrow")))
    with setting.assemble(*TINY_CLIP, *BATCH) as (trainer, _):
        return read_all(trainer.get_train_dataloader())


def drop_from_memory(files: Sequence[Path]) -> None:
    """Write files to the disk and drop them from the page cache, as far as no process maps them."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
