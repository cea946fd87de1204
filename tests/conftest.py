"""Fixtures of all tests: small generated data, no network."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries below are imported
os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors: a second thread only waits, and on a busy machine for long

from data_utils import DataArguments, PictureSettings

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("negative", "neutral", "positive")


def draw_photo(seed: str | int = 0, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """A picture of soft patches with some noise, other for every seed; size is (width, height)."""
    rng = np.random.default_rng(zlib.crc32(str(seed).encode()))
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int64)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def photo() -> Callable[..., Image.Image]:
    """Factory of pictures: `photo(seed, (width, height))`."""
    return draw_photo


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Factory of a data folder: `make_pairs(rows)` writes train.txt and data/{guid}.txt|.jpg, returns the folder.

    A row is (guid, label) or (guid, label, text) or (guid, label, text, picture). Text: str, bytes, or None for no
    file; by default words of its own. Picture: a PIL image, bytes, or None for no file; by default one of its own.
    A guid that stands twice gets the files of its first row; one that is no plain file name gets none.
    """

    def make(
        rows: Sequence[tuple], *, list_name: str = "train.txt", header: bool = True, folder: str = "pairs"
    ) -> Path:
        root = tmp_path / folder
        (root / "data").mkdir(parents=True, exist_ok=True)
        seen = set()
        for guid, _, *content in rows:
            if guid in seen or "/" in guid or guid in ("", ".", ".."):
                continue
            seen.add(guid)
            text = content[0] if content else f"some words of pair {guid}"
            picture = content[1] if len(content) > 1 else draw_photo(guid)
            if text is not None:
                source = text if isinstance(text, bytes) else text.encode()
                (root / "data" / f"{guid}.txt").write_bytes(source)
            if isinstance(picture, bytes):
                (root / "data" / f"{guid}.jpg").write_bytes(picture)
            elif picture is not None:
                picture.save(root / "data" / f"{guid}.jpg", quality=90)
        lines = ["guid,tag"] * header + [f"{row[0]},{row[1]}" for row in rows]
        (root / list_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    return make


@pytest.fixture
def numbered_rows() -> Callable[..., list[tuple[str, str]]]:
    """Factory of `count` rows (guid, label) with labels drawn by a seed."""

    def make(count: int, seed: int = 0) -> list[tuple[str, str]]:
        rng = random.Random(seed)
        return [(str(100 + number), rng.choice(LABELS)) for number in range(count)]

    return make


@pytest.fixture
def make_arguments(tmp_path: Path) -> Callable[..., DataArguments]:
    """Factory of DataArguments for a folder, with a cache of the test's own and one process."""

    def make(folder: Path, **options: object) -> DataArguments:
        defaults = {"cache_dir": str(tmp_path / "cache"), "preprocessing_num_workers": 1}
        return DataArguments(data_dir=str(folder), **{**defaults, **options})

    return make


@pytest.fixture
def small_picture() -> PictureSettings:
    """32 pixels, shortest side then centre crop, bicubic."""
    return PictureSettings(image_size=32, shortest_edge=36, resize_mode="shortest", resample=3)


@pytest.fixture
def shared() -> Path:
    """The folder ../shared with real data and encoders; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("../shared is absent")
    return folder
