"""What can't be read as a table is answered in one sentence that names the file, the place and the remedy."""

from __future__ import annotations

import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_photo
from datasets import ClassLabel, Dataset, DatasetDict, Features
from tables.table_files import ROWS, encode_rows, write_rows

from data_utils.sources.arguments import DataArguments
from data_utils.tables import files
from data_utils.tables.reading import read_parts
from modeling.errors import InputError

CSV, PARQUET, STREAM, JSON = (encode_rows(name, ROWS) for name in ("a.csv", "a.parquet", "stream.arrow", "a.json"))


def draw_png():
    target = io.BytesIO()
    draw_photo().save(target, "PNG")
    return target.getvalue()


def write_columns(*names):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * len(names), list(names)), sink)
    return sink.getvalue()


# Name and content of a file, and what the sentence says beside the name.
CONTENTS = {
    "empty": ("a.csv", b"", ["empty"]),
    "blank lines": ("a.tsv", b"\n\n \n".replace(b" ", b""), ["empty"]),
    "header only": ("a.csv", b"id,text\n", ["no rows", "id, text"]),
    "header only, quoted": ("a.csv", b'"id","text"\r\n', ["no rows", "id, text"]),
    "semicolons": ("a.csv", b"id;text\n1;x\n", ["line 1", "';'"]),
    "tabs in csv": ("a.csv", b"id\ttext\n1\tx\n", ["line 1", r"'\t'", ".tsv"]),
    "bars": ("a.csv", b"id|text\n1|x\n", ["line 1", "'|'"]),
    "commas in tsv": ("a.tsv", b"id,text\n1,x\n", ["line 1", "','", ".csv"]),
    "open quote": ("a.csv", b'id,text\n1,x\n2,"y\n3,z\n4,w\n', ["line 3"]),
    "open quote in a row of several lines": ("a.csv", b'id,text,b\n1,x,y\n2,"y\nz","w\n4,w,x\n', ["opens in line 4"]),
    "open quote, closed by another": ("a.csv", b'id,text\n1,"x\n2,"y"\n', ["line 3", "opens in line 2"]),
    "text behind a quote": ("a.csv", b'id,text\n1,"x" y\n', ["line 2"]),
    "too few cells": ("a.csv", b"id,text,label\n1,x,a\n2,y\n", ["line 3", "2 cells", "3 (id, text, label)"]),
    "too many cells": ("a.csv", b"id,text\n1,x\n2,y, z\n", ["line 3", "3 cells", "2 (id, text)"]),
    "too few behind quoted lines": ("a.csv", b'id,text\n1,"x\nx"\n2\n', ["line 4", "1 cells"]),
    "too many, quoted": ("a.tsv", b'id\ttext\n1\t"x"\n2\t"y"\t"z"\n', ["line 3", "3 cells"]),
    "names twice": ("a.csv", b"id,text,id\n1,x,y\n", ["line 1", "column 3", "'id'"]),
    "no name": ("a.csv", b",text\n0,x\n", ["line 1", "column 1", "index=False"]),
    "blank name": ("a.csv", b"id, ,text\n0,x,y\n", ["line 1", "column 2"]),
    "NUL": ("a.csv", b"id,text\n1,x\n2,y\0z\n", ["line 3", "NUL"]),
    "zeros": ("a.csv", bytes(5000), ["zeros"]),
    "PNG as csv": ("a.csv", draw_png(), ["picture"]),
    "PDF as csv": ("a.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", ["PDF"]),
    "Excel as csv": ("a.csv", b"PK\x03\x04" + os.urandom(40), ["office document"]),
    "Parquet as csv": ("a.csv", PARQUET, ["Parquet"]),
    "gzip as csv": ("a.csv", gzip.compress(CSV), ["gzip"]),
    "page as csv": ("a.csv", b"<!DOCTYPE html><html><body>404</body></html>", ["HTML"]),
    "pointer": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", ["git lfs pull"]),
    "broken line": ("a.jsonl", b'{"a": 1}\n{"a": }\n', ["line 2, column 7"]),
    "cut line": ("a.jsonl", b'{"a": 1}\n{"a": "x', ["line 2, column 7"]),
    "two on a line": ("a.jsonl", b'{"a": 1}{"a": 2}\n', ["line 1, column 9"]),
    "a list of numbers": ("a.json", b"[1, 2]", ["line 1, column 2", "no object"]),
    "a text line": ("a.jsonl", b'{"a": 1}\n"x"\n', ["line 2", "no object"]),
    "open list": ("a.json", JSON.rstrip(b"]\n"), ["where the object ends"]),
    "cut list": ("a.json", JSON[:-20], ["line "]),
    "no comma": ("a.json", b'[{"a": 1}\n{"a": 2}]', ["line 1, column 10"]),
    "list and more": ("a.json", b'[{"a": 1}]\n[{"a": 2}]', ["line 2, column 1"]),
    "single quotes": ("a.json", b"[{'a': 1}]", ["line 1, column 3"]),
    "empty list": ("a.json", b"[]", ["line 1, column 2"]),
    "empty json": ("a.json", b"\n", ["empty"]),
    "deep": ("a.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 100_000 + b"\n", ["line 2", "deep"]),
    "keys twice": ("a.jsonl", b'{"a": 1}\n{"a": 1, "b": 2, "a": 3}\n', ["line 2", "'a' stands twice"]),
    "long number": ("a.jsonl", b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}\n", ["line 2", "digits"]),
    "half a character": ("a.jsonl", b'{"a": "x"}\n{"a": "\\ud83d"}\n', ["line 2", "half of a character"]),
    "many keys": ("a.jsonl", json.dumps({f"k{n}": 1 for n in range(1500)}).encode(), ["line 1", "keys"]),
    "no key": ("a.jsonl", b'{"": 1}', ["column 1 has no name"]),
    "cut Parquet": ("a.parquet", PARQUET[:-30], ["can't be read", "copy it again"]),
    "Parquet without end": ("a.parquet", PARQUET[:200] + bytes(300) + PARQUET[500:], ["can't be read"]),
    "text as Parquet": ("a.parquet", CSV, ["can't be read"]),
    "picture as Parquet": ("a.parquet", b"%PDF-1.7\n" * 9, ["PDF"]),
    "empty Parquet": ("a.parquet", b"", ["can't be read"]),
    "Parquet, no name": ("a.parquet", write_columns("a", ""), ["column 2 has no name"]),
    "Parquet, names twice": ("a.parquet", write_columns("a", "b", "a"), ["column 3"]),
    "cut Arrow": ("stream.arrow", STREAM[:300], ["can't be read"]),
    "text as Arrow": ("a.arrow", CSV, ["can't be read"]),
    "cut gzip": ("a.csv.gz", gzip.compress(CSV)[:-12], ["can't be read"]),
    "no gzip": ("a.csv.gz", CSV, ["can't be read"]),
    "bomb": ("a.csv.gz", gzip.compress(bytes(70 * 2**20)), ["holds over"]),
    "packed Parquet": ("a.parquet.gz", gzip.compress(PARQUET), ["ending", ".parquet"]),
    "Excel": ("a.xlsx", b"PK\x03\x04", ["ending", ".csv, .tsv"]),
    "text": ("a.txt", b"x\ty\n", ["ending", ".csv, .tsv"]),
    "no ending": ("rows", b"x,y\n", ["ending", ".csv, .tsv"]),
}


@pytest.fixture
def refusal(tmp_path):
    """The one sentence that is the answer to data."""

    def run(*names, **options):
        named = [name if "://" in name else str(tmp_path / name) for name in names]
        data = DataArguments(data_dir=str(tmp_path), data=named, cache_dir=str(tmp_path / "cache"), **options)
        with pytest.raises(InputError) as caught:
            read_parts(data)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


@pytest.mark.parametrize("case", CONTENTS)
def test_files_that_cannot_be_read(case, tmp_path, refusal):
    name, content, words = CONTENTS[case]
    (tmp_path / name).write_bytes(content)
    message = refusal(name)
    assert [word for word in [str(tmp_path / name), *words] if word not in message] == [], message


def test_large_texts_are_not_read(tmp_path, refusal, monkeypatch):
    monkeypatch.setattr(files, "_MAX_TEXT", 2**20)
    (tmp_path / "a.csv").write_bytes(b"a\n" * 2**20)
    assert "holds over 1,048,576 bytes" in refusal("a.csv")


def test_what_is_no_file(tmp_path, refusal):
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink("/dev/zero", tmp_path / "zero.csv")
    os.symlink("nowhere", tmp_path / "broken.csv")
    (tmp_path / "a.csv").mkdir()
    write_rows(tmp_path / "b.csv")
    assert "pipe.csv is no regular file" in refusal("pipe.csv")
    assert "zero.csv is no regular file" in refusal("zero.csv")
    assert "broken.csv" in refusal("broken.csv")
    assert "missing.csv" in refusal("missing.csv")
    assert "*.jsonl" in refusal("*.jsonl")
    assert "a folder" in refusal("b.csv", "a.csv")
    assert "x.csv" in refusal("b.csv", "x.csv")
    assert "nosuch" in refusal("nosuch://a/b.csv")
    assert "nothing.csv" in refusal("memory://nowhere/nothing.csv")


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("b.csv", [{"id": "1", "other": "x"}], ["other columns", "b.csv", "a.csv", "other, text"]),
        ("b.jsonl", [{"id": 1, "text": "x"}], ["differ in type", "int64"]),
    ],
)
def test_files_that_do_not_go_together(name, rows, words, tmp_path, refusal):
    write_rows(tmp_path / "a.csv", [{"id": "1", "text": "x"}])
    write_rows(tmp_path / name, rows)
    message = refusal("a.csv", name)
    assert [word for word in words if word not in message] == [], message


def test_files_of_other_classes(tmp_path, refusal):
    for name, classes in (("a", ["x", "y"]), ("b", ["y", "x"])):
        features = Features({"label": ClassLabel(names=classes)})
        Dataset.from_dict({"label": [0, 1]}, features=features).to_parquet(tmp_path / f"{name}.parquet")
    assert "b.parquet declares other classes" in refusal("a.parquet", "b.parquet")


def test_folders_that_hold_no_table(tmp_path, refusal):
    for name in ("empty", "mixed/a", "deep/train", "deep/other", "two"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mixed/1.jpg", "mixed/a/1.jpg"):
        draw_photo().save(tmp_path / name)
    for name in ("two/metadata.csv", "two/metadata.jsonl"):
        write_rows(tmp_path / name)
    empty = refusal("empty")
    assert all(word in empty for word in ("train.txt", "dataset_dict.json", "labelResultAll.txt", "metadata.csv"))
    assert "mixed" in refusal("mixed")
    assert "other" in refusal("deep")
    assert "not one of metadata.csv" in refusal("two")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\tneutral\n", ["line 1"]),
        ("ID\ttext,image\n1\tneutral,positive\n2\tgood,bad\n", ["line 3"]),
        ("1\tneutral,positive\tneutral,positive\n", ["line 1"]),
        ("1,neutral,positive\n", ["line 1"]),
        ("../x\tneutral,positive\n", ["line 1"]),
        ("1\tnegative,positive\n", ["no rows"]),
    ],
)
def test_damaged_mvsa_lists(content, words, tmp_path, refusal):
    (tmp_path / "mvsa" / "data").mkdir(parents=True)
    (tmp_path / "mvsa" / "labelResultAll.txt").write_text(content)
    message = refusal("mvsa")
    assert [word for word in ["mvsa", *words] if word not in message] == [], message


def test_damaged_saved_data_sets(tmp_path, refusal):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    assert "saved can't be read" in refusal("saved")
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "cut")
    part = next((tmp_path / "cut").glob("*.arrow"))
    part.write_bytes(part.read_bytes()[:200])
    assert "cut can't be read" in refusal("cut")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_split": "nope"}, ["--train_split 'nope'", "b, more, dev"]),
        ({"train_split": "none"}, ["--train_split", "b, more, dev"]),
        ({}, ["b, more, dev", "--train_split"]),
        ({"train_split": "more", "val_split": "nope"}, ["--val_split 'nope'"]),
        ({"train_split": "more", "val_split": "more"}, ["--val_split 'more'"]),
        ({"train_split": "more", "test_split": "dev"}, ["--test_split 'dev'"]),
        ({"train_split": "more", "val_split": "b", "val_data": ["x.csv"]}, ["--val_data", "--val_split"]),
        ({"train_split": "more", "test_split": "b", "test_data": ["x.csv"]}, ["--test_data", "--test_split"]),
        ({"train_split": "more", "val_data": ["x.csv"]}, ["--val_data", "x.csv"]),
    ],
)
def test_flags_that_do_not_fit(options, words, tmp_path, refusal):
    splits = {"b": ROWS[:2], "more": ROWS, "dev": ROWS[:1]}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(tmp_path / "saved")
    message = refusal("saved", **options)
    assert [word for word in words if word not in message] == [], message


def test_files_have_no_splits(tmp_path, refusal):
    write_rows(tmp_path / "a.csv")
    assert "no splits" in refusal("a.csv", val_split="val")
    assert "no splits" in refusal("a.csv", train_split="train")


def test_splits_of_other_data_are_told(tmp_path, refusal):
    write_rows(tmp_path / "a.csv")
    DatasetDict(x=Dataset.from_list(ROWS), y=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "saved")
    assert "x, y" in refusal("a.csv", test_data=[str(tmp_path / "saved")])
