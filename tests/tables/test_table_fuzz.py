"""Damaged tables are answered with a table or with one sentence, whatever their format."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset
from fuzzing import Reader, fuzz, read_all
from tables.table_files import ROWS, write_rows

from data_utils.sources.arguments import DataArguments
from data_utils.tables.reading import read_parts

FORMATS = (
    "rows.csv",
    "rows.tsv",
    "rows.json",
    "rows.jsonl",
    "rows.parquet",
    "stream.arrow",
    "file.arrow",
    "rows.csv.gz",
)
FEW, MANY = 34, 2000  # of each format
FOLDER = "saved"


def write(name: str, folder: Path) -> None:
    if name == FOLDER:
        Dataset.from_list(ROWS).save_to_disk(folder / name)
    else:
        write_rows(folder / name)


def read(name: str, folder: Path) -> None:
    data = DataArguments(data_dir=str(folder), data=[str(folder / name)], cache_dir=str(folder / "cache"))
    for _ in range(2):  # parsed, then opened
        table = read_parts(data)["train"].dataset.with_format("arrow")[:]
        assert isinstance(table, pa.Table)
        table.to_pylist()


READERS = {
    name: Reader(
        name,
        lambda folder, name=name: write(name, folder),
        lambda folder, name=name: read(name, folder),
        [f"{name}/*" if name == FOLDER else name],
        1,
    )
    for name in (*FORMATS, FOLDER)
}


@pytest.mark.parametrize("seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.fuzz)], ids=str)
@pytest.mark.parametrize("name", READERS)
def test_damaged_tables_are_answered_in_one_sentence(name, seeds, tmp_path):
    assert fuzz(Path(__file__), READERS[name], tmp_path, seeds) == []


if __name__ == "__main__":  # as `fuzz` starts it
    chosen, folder, first, stop = sys.argv[1:]
    read_all(READERS[chosen], Path(folder), range(int(first), int(stop)))
