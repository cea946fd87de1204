"""Caches damaged at equal size: built again in the same start, with one notice, and never read as they are."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset

from data_utils.prepare.cache import build_once, cache_folder

KEY = "0" * 64
ROWS = {
    "guid": ["a", "bb", None, "schön"] * 3,
    "label": [0, 1, 2, -100] * 3,
    "input_ids": [[1, 2], [], [3], [4, 5, 6]] * 3,
    "present": [True, False, True, True] * 3,
    "image": [b"\xff\xd8" * 40, None, b"", b"x"] * 3,
}


def build(folder: Path) -> None:
    table = pa.table(ROWS | {"image": pa.array(ROWS["image"], pa.binary())})
    with pa.ipc.new_stream(str(folder / "part.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    (folder / "quarantine.json").write_text("[[1, 2, 3]]")


def load(cache_dir: Path, *, checked: bool = False) -> Dataset:
    return build_once(cache_dir, "rows", KEY, build, checked=checked)


@pytest.mark.parametrize("checked", [False, True])
def test_any_bit_turned_is_noticed_but_in_what_binary_columns_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, checked: bool
) -> None:
    assert load(tmp_path, checked=checked).to_dict() == ROWS
    files = [cache_folder(tmp_path, "rows", KEY) / name for name in ("part.arrow", "quarantine.json", "meta.json")]
    sound = {path: path.read_bytes() for path in files[:2]}
    rng, rebuilt = random.Random(0), 0
    for turn in range(90):
        path = files[turn % 3]
        content = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        caplog.clear()
        found = load(tmp_path, checked=checked).to_dict()
        rebuilt += caplog.text.count("building it again") == 1
        without_pictures = {name: values for name, values in found.items() if name != "image" or checked}
        assert without_pictures == {name: ROWS[name] for name in without_pictures}
        assert [len(picture or b"") for picture in found["image"]] == [len(picture or b"") for picture in ROWS["image"]]
        assert files[1].read_bytes() == sound[files[1]]
        for other, before in sound.items():
            other.write_bytes(before)
    assert rebuilt > 60, "padding, pictures and the time of building aside"


@pytest.mark.parametrize("name", ["part.arrow", "quarantine.json", "meta.json"])
def test_file_of_200_gigabytes_in_a_cache_is_built_again(tmp_path: Path, name: str) -> None:
    load(tmp_path)
    os.truncate(cache_folder(tmp_path, "rows", KEY) / name, 200 * 2**30)
    assert load(tmp_path).to_dict() == ROWS
    assert (cache_folder(tmp_path, "rows", KEY) / name).stat().st_size < 2**20
