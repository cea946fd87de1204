"""Files whose names differ from the list's in Unicode's spelling alone serve shards and copies as well as training."""

import unicodedata

import pyarrow.parquet as pq
import pytest

from data_utils import shard
from data_utils.augment.copies import CopyMaker, read_text
from data_utils.prepare.pair_files import PairFolder
from data_utils.sources.records import Record

NAMES = [f"caf\u00e9 {number}" for number in range(6)]


@pytest.fixture
def folder(make_pairs):
    """Files with names in pieces (NFD), as macOS stores them, and a list with whole letters (NFC)."""
    root = make_pairs([(unicodedata.normalize("NFD", name), "positive", f"a really good day {name}") for name in NAMES])
    (root / "train.txt").write_text("".join(f"{name},positive\n" for name in NAMES), encoding="utf-8")
    return root


def test_shards_hold_texts_and_pictures(folder, tmp_path):
    words = f"--data_dir {folder} --output_dir {tmp_path}/shards --cache_dir {tmp_path}/cache".split()
    assert shard.main([*words, "--preprocessing_num_workers", "1", "--val_ratio", "0"]) == 0
    rows = pq.read_table(tmp_path / "shards" / "train-00000-of-00001.parquet").to_pylist()
    assert sorted(row["guid"] for row in rows) == NAMES
    stored = {name: folder / "data" / f"{unicodedata.normalize('NFD', name)}.jpg" for name in NAMES}
    assert all(row["image"]["bytes"] == stored[row["guid"]].read_bytes() for row in rows)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_copies_are_made_of_them(folder, tmp_path, kind):
    (tmp_path / "staging").mkdir()
    files = PairFolder(folder / "data")
    records = [Record(number, name, "positive") for number, name in enumerate(NAMES)]
    assert len({read_text(files.find(record.guid).text, None) for record in records} - {None}) == 6
    maker = CopyMaker(files, tmp_path / "staging", seed=1, flip=False, taken=set(NAMES))
    (copy,) = maker.make(records[0], kind, 1)
    assert {name.rpartition(".")[2] for name in copy.files} == {"txt", "jpg"}
    assert all((tmp_path / "staging" / name).stat().st_size for name in copy.files)
