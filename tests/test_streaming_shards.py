"""Shards: what goes in comes out, in both formats, once; foreign ones are read, spoilt ones refused."""

import csv
import io
import json
import runpy
import sys
import tarfile
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value, load_dataset
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from data_utils import shard
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import check_columns, iterate_shard
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import find_shards
from data_utils.splits.split_file import load_split
from modeling.errors import InputError

FORMATS = ("parquet", "webdataset")


def read_all(location, part):
    shards = find_shards(str(location), part)
    return [read() for each in shards.shards for _, read in iterate_shard(each, shards.kind, stop=each.rows)]


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_come_out_as_they_went_in(write_shards, numbered_rows, tmp_path, kind):
    rows = [(guid, label, f"TEXT of {guid} http://t.co/x") for guid, label in numbered_rows(40)]
    folder = write_shards(rows, "--shard_format", kind)
    split = load_split(folder / "split.json")
    for part, guids in (("train", split.train), ("validation", split.val)):
        found = read_all(folder, part)
        assert sorted(row.guid for row in found) == list(guids)
        for row in found:
            source = tmp_path / "pairs" / "data" / f"{row.guid}.jpg"
            assert row.image == source.read_bytes(), "the file's own bytes"
            assert (row.text, row.label) == (f"TEXT of {row.guid} http://t.co/x", dict(r[:2] for r in rows)[row.guid])
    shards = find_shards(str(folder), "train")
    assert [each.rows for each in shards.shards][:-1] == [7] * (len(shards.shards) - 1)
    assert shards.num_rows == len(split.train)
    assert shards.label_counts.total() == len(split.train)
    assert [row.guid for row in read_all(folder, "train")] != sorted(split.train), "a sorted list is mixed"


@pytest.mark.parametrize("kind", FORMATS)
def test_datasets_reads_the_shards_too(write_shards, numbered_rows, kind):
    folder = write_shards(numbered_rows(20), "--shard_format", kind)
    ending = "parquet" if kind == "parquet" else "tar"
    rows = list(load_dataset(kind, data_files=f"{folder}/train-*.{ending}", split="train", streaming=True))
    assert len(rows) == find_shards(str(folder), "train").num_rows
    assert rows[0]["image" if kind == "parquet" else "jpg"].size == (48, 36)


def test_twins_stay_in_one_part(write_shards):
    rows = [(f"{number}{copy}", "positive", f"words {number}") for number in range(30) for copy in ("", "_t1")]
    folder = write_shards(rows, "--val_ratio", "0.3")
    parts = [{row.guid.split("_")[0] for row in read_all(folder, part)} for part in ("train", "validation")]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]


@pytest.mark.parametrize("kind", FORMATS)
def test_list_for_prediction_keeps_every_row_in_order(write_shards, kind):
    rows = [("b", "null"), ("../a", "null"), ("c", "null", None), ("b", "null"), ("d", "null", "x", b"no picture")]
    flags = ["--shard_format", kind, "--for_prediction", "--rows_per_shard", "2"]
    folder = write_shards(rows, *flags, list_name="test_without_label.txt")
    found = read_all(folder, "test")
    assert [row.guid for row in found] == ["b", "../a", "c", "b", "d"]
    assert [row.text is None for row in found] == [False, True, True, False, False]
    assert [row.image is None for row in found] == [False, True, False, False, True]
    assert find_shards(str(folder), "train") is None


@pytest.mark.parametrize(
    "flag", [("--split_file", "x.json"), ("--val_ratio", "0.1"), ("--seed", "42"), ("--on_bad_pair", "drop")]
)
def test_list_for_prediction_is_neither_split_nor_mixed_nor_cut(write_shards, numbered_rows, capsys, flag):
    folder = write_shards(numbered_rows(9), "--for_prediction", *flag, code=2)
    assert f"Got {' '.join(flag)} with --for_prediction, which writes every row" in capsys.readouterr().err
    assert not folder.exists()


def test_list_that_is_not_parted_by_commas_is_refused(write_shards, numbered_rows, tmp_path, capsys):
    write_shards(numbered_rows(9), name="first")
    (tmp_path / "pairs" / "list.txt").write_text("guid;tag\n1;null\n2;null\n")
    words = ["--data_dir", str(tmp_path / "pairs"), "--output_dir", str(tmp_path / "none"), "--train_file", "list.txt"]
    assert shard.main([*words, "--cache_dir", str(tmp_path / "cache"), "--for_prediction"]) == 2
    assert "read as the guid 'guid;tag'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_dir", "D", "--output_dir", "S", "--unknown"], "error: Got '--unknown', which is no flag of "),
        (["--output_dir", "S"], "error: The following arguments are required: --data_dir"),
        (["--data_dir", "D", "--output_dir", "S", "--seed", "x"], "error: Argument --seed: invalid int value: 'x'"),
    ],
)
def test_flags_that_cannot_be_parsed_are_one_sentence(capsys, words, message):
    assert shard.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_command_counts_the_faults_on_the_screen(make_pairs, numbered_rows, tmp_path, monkeypatch, caplog):
    folder = make_pairs([*numbered_rows(9), ("bare", "positive", "x", None)])
    words = ["--data_dir", str(folder), "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache")]
    monkeypatch.setattr("sys.argv", ["shard", *words, "--preprocessing_num_workers", "1"])
    monkeypatch.delitem(sys.modules, "data_utils.shard")  # or runpy warns that it is imported already
    with pytest.raises(SystemExit) as ending:
        runpy.run_module("data_utils.shard", run_name="__main__")
    assert ending.value.code == 0
    assert "missing_image" in caplog.text


def test_faulty_rows_are_in_quarantine(write_shards, photo):
    rows = [("1", "positive", "x", b"broken"), ("2", "glad"), ("3", "negative", None), ("4", "neutral", None, None)]
    folder = write_shards([*rows, *((str(number), "positive") for number in range(10, 20))], "--val_ratio", "0")
    with (folder / "quarantine.csv").open() as file:
        entries = {(row["guid"], row["reason"], row["action"]) for row in csv.DictReader(file)}
    assert entries == {
        ("1", "unreadable_image", "masked"),
        ("2", "unknown_label", "dropped"),
        ("3", "missing_text", "masked"),
        ("4", "missing_text", "dropped"),
        ("4", "missing_image", "dropped"),
    }
    assert len(read_all(folder, "train")) == 12
    assert find_shards(str(folder), "validation") is None


def test_processes_write_what_one_writes(write_shards, numbered_rows):
    rows = numbered_rows(30)
    one, two = write_shards(rows), write_shards(rows, "--preprocessing_num_workers", "2", name="two")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }


def test_foreign_parquet_with_class_names_and_numbers(photo, tmp_path):
    target = io.BytesIO()
    photo(1).save(target, "PNG")
    names = ["positive", "negative"]
    features = Features(
        {"id": Value("int64"), "text": Value("string"), "label": ClassLabel(names=names), "image": Image()}
    )
    rows = {
        "id": [7, 8],
        "text": ["a", "b"],
        "label": [1, -1],
        "image": [{"bytes": target.getvalue(), "path": None}] * 2,
    }
    pq.write_table(pa.table(rows, schema=features.arrow_schema), tmp_path / "part0.parquet")
    found = read_all(tmp_path, "train")
    assert [(row.guid, row.label) for row in found] == [("7", "negative"), ("8", None)]
    assert found[0].image == target.getvalue()
    shards = find_shards(f"{tmp_path}/*.parquet", "train")
    assert shards.num_rows == 2
    assert shards.label_counts is None


def test_foreign_tar_in_memory(photo):
    target = io.BytesIO()
    photo(1).save(target, "JPEG")
    files = {
        "x/0.jpg": target.getvalue(),
        "x/0.txt": b"words",
        "x/0.cls": b"2\n",
        "x/1.png": b"",
        "x/1.json": b'{"label": 1}',
    }
    with fsspec.open("memory://foreign/00000.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shards = find_shards("memory://foreign", "train")
    check_columns(shards, labelled=True)
    assert shards.num_rows is None
    found = read_all("memory://foreign", "train")
    assert [(row.guid, row.text, row.label) for row in found] == [("x/0", "words", "2"), ("x/1", None, 1)]


def test_missing_columns_are_named(tmp_path):
    pq.write_table(pa.table({"picture": [b"x"], "text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"holds label, picture, text; needed are the columns image \(struct"):
        check_columns(find_shards(str(tmp_path), "train"), labelled=True)


def test_damaged_shard_is_named(write_shards, numbered_rows):
    folder = write_shards(numbered_rows(30))
    path = sorted(folder.glob("train-*"))[1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match=path.name):
        read_all(folder, "train")


@pytest.mark.parametrize(
    ("kind", "announced", "message"),
    [
        ("parquet", 9, "has 7 rows; its footer says 7, shards.json 9"),
        ("parquet", 5, "has 7 rows; its footer says 7, shards.json 5"),
        ("webdataset", 9, "ends after 7 rows, of which 9 were announced"),
        ("webdataset", 5, "has more than the 5 rows that were announced"),
    ],
)
def test_shard_with_other_rows_than_announced_is_noticed_before_its_last(
    write_shards, numbered_rows, kind, announced, message
):
    shards = find_shards(str(write_shards(numbered_rows(20), "--shard_format", kind)), "train")
    other = replace(shards.shards[0], rows=announced)
    rows = []
    with pytest.raises(ShardError, match=message):
        rows.extend(number for number, _ in iterate_shard(other, kind, stop=announced))
    assert announced > len(rows), "also noticed by who asks for no row behind the last"


def test_manifest_of_another_version_is_refused(write_shards, numbered_rows):
    folder = write_shards(numbered_rows(20))
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(InputError, match="has version: 99, where one of 1 belongs"):
        find_shards(str(folder), "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("complete"), "has no complete, where true or false belongs"),
        (lambda manifest: manifest.pop("parts"), "has no parts, where a map belongs"),
        (lambda manifest: manifest["parts"].update(train="x"), "parts.train: 'x', where a list belongs"),
        (lambda manifest: manifest["parts"]["train"].append("x"), "'x', where a map belongs"),
        (lambda manifest: manifest["parts"]["train"][1].pop("bytes"), "parts.train.1: no bytes"),
        (lambda manifest: manifest["parts"]["train"][1]["labels"].update(glad="x"), "parts.train.1.labels.glad: 'x'"),
        (lambda manifest: manifest.update(format="zip"), "format: 'zip', where one of parquet, webdataset belongs"),
    ],
)
def test_manifest_that_lacks_something_is_refused(write_shards, numbered_rows, capsys, change, message):
    rows = numbered_rows(20)
    folder = write_shards(rows)
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        find_shards(str(folder), "train")
    write_shards(rows, code=2)
    assert message in capsys.readouterr().err


def test_manifest_of_other_origin_is_not_gone_on_with(write_shards, numbered_rows, capsys):
    rows = numbered_rows(20)
    folder = write_shards(rows)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert find_shards(str(folder), "train") is not None
    write_shards(rows, code=2)
    assert "holds shards of other data or settings" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x_9.tar", "x.parquet", "x_[1]", "x*"])
def test_folder_may_be_named_like_a_file_or_a_glob(write_shards, numbered_rows, name):
    folder = write_shards(numbered_rows(20), "--shard_format", "webdataset", name=name)
    shards = find_shards(str(folder), "train")
    assert shards.num_rows == len(read_all(folder, "train")), "counted by its shards.json"
    (folder / MANIFEST).unlink()
    assert [shard.name for shard in find_shards(str(folder), "train").shards] == [s.name for s in shards.shards]


def test_url_that_cannot_be_opened_is_one_sentence(monkeypatch):
    class LostFileSystem(MemoryFileSystem):
        """Its errors are no OSErrors, as those of hf:// without a network."""

        protocol = "lost"

        def isfile(self, path):
            raise RuntimeError("no\nnetwork")

    fsspec.register_implementation("lost", LostFileSystem, clobber=True)
    monkeypatch.setitem(
        known_implementations, "uninstalled", {"class": "no_such_package.FileSystem", "err": "Install x"}
    )
    for url, message in (
        ("foo://bar/x", "ValueError: Protocol not known: foo"),
        ("uninstalled://bar/x", "ImportError: Install x"),
        ("lost://bar/x", "RuntimeError: no network"),
    ):
        with pytest.raises(InputError, match=f"The shards in {url} can't be read \\({message}\\); check --data_dir"):
            find_shards(url, "train")
