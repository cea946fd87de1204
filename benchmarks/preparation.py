"""Preparing pairs that were never seen, against decoding and resizing the same pictures and nothing else."""

from __future__ import annotations

import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results import Result
from benchmarks.setting import PICTURE, Setting
from benchmarks.turns import compare, time_of
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.arguments import DataArguments

TARGET = 0.75
MORE_TURNS = 3  # times as many as of other measurements: the sides are a few hundredths apart, and turns as much


def measure(setting: Setting) -> list[Result]:
    """Pairs per second of `load_pairs` with an empty cache, and pictures per second of all cores that only decode."""
    files = (setting.data_dir / "data" / f"{guid}.jpg" for guid in read_guids(setting.data_dir / "train.txt"))
    pictures = [file for file in files if file.exists()]
    workers = DataArguments(data_dir=str(setting.data_dir)).num_workers()
    ways = partial(prepare_anew, setting), partial(time_of, partial(decode_all, pictures, workers))
    sides = [lambda way=way: len(pictures) / way() for way in ways]
    note = f"{len(pictures)} pairs, {workers} processes; preparing also reads and cleans texts and writes the cache"
    about = ("prepared pairs", "pairs/s", "bare decoding and resizing")
    return [compare(*about, sides, MORE_TURNS * setting.repeats, target=TARGET, note=note)]


def prepare_anew(setting: Setting) -> float:
    """Seconds of everything up to the table of pairs, with an empty cache; not of removing that cache afterwards."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        data = DataArguments(data_dir=str(setting.data_dir), cache_dir=folder)
        prepare = partial(load_pairs, data.list_path(), pair_dir=setting.data_dir, data=data, picture=PICTURE)
        return time_of(prepare)


def read_guids(list_file: Path) -> list[str]:
    """The first cell of every line."""
    return [line.partition(",")[0] for line in list_file.read_text(encoding="utf-8").splitlines()]


def decode_all(paths: list[Path], workers: int) -> None:
    """Decode and resize by a plain pool; nothing is kept."""
    with multiprocessing.Pool(workers) as pool:
        pool.map(decode_plainly, paths, chunksize=16)


def decode_plainly(path: Path) -> None:
    """What every preparation has to do at least."""
    with Image.open(path) as image:
        np.asarray(image.convert("RGB").resize((PICTURE.image_size, PICTURE.image_size), PICTURE.resample))
