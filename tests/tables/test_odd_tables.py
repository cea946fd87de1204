"""Tables, flags and runs as a careless student or a hostile peer has them: one sentence, or exactly what was asked."""

from __future__ import annotations

import datetime
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TELLING_WORDS, read_csv
from datasets import ClassLabel, Dataset, DatasetDict
from evaluating import LABELS

from data_utils import shard
from data_utils.shards.manifest import MANIFEST
from data_utils.sources.arguments import DataArguments
from data_utils.tables.opening import names_table
from modeling.errors import InputError


def draw_rows(count=24, first=0, **columns):
    """Rows whose text tells the label; a column is a value, or a function of the row's number."""
    rows = []
    for number in range(first, first + count):
        label = LABELS[number % 3]
        row = {"id": f"r{number}", "text": f"{TELLING_WORDS[label]} {number}", "image": None, "label": label}
        rows.append(row | {name: each(number) if callable(each) else each for name, each in columns.items()})
    return rows


@pytest.fixture
def write(tmp_path):
    """Factory of a table: Parquet of `rows`, or what a function writes; returns its path."""

    def make(rows, name="rows.parquet"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("\n".join(map(json.dumps, rows)))
        return path

    return make


@pytest.fixture
def write_shards(tmp_path, capfd):
    """Write shards of tables; returns the split, or the one sentence."""

    def run(data, *flags):
        words = ["--data", *map(str, data if isinstance(data, list) else [data]), "--allow_data_loss"]
        words += ["--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache")]
        capfd.readouterr()
        code = shard.main([*words, "--preprocessing_num_workers", "1", *map(str, flags)])
        screen = capfd.readouterr().err
        errors = [line for line in screen.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) in ((0, 0), (2, 1)), screen
        return errors[0] if errors else json.loads((tmp_path / "out" / "split.json").read_text())

    return run


@pytest.mark.parametrize(
    ("columns", "flags", "words"),
    [
        ({"caption": "x"}, [], ["text, caption", "--text_column"]),
        ({}, ["--text_column", "Text"], ["'Text'", "'text'"]),
        ({}, ["--text_column", "text", "text"], ["'text'", "twice"]),
        ({}, ["--text_column", "label", "--label_column", "label"], ["'label'", "twice"]),
        ({}, ["--text_column", "text", "--image_column", "text"], ["'text'", "twice"]),
        ({"text": lambda number: {"a": number}}, [], ["'text'", "struct<a: int64>", "--text_column"]),
        ({"text": lambda number: [str(number)]}, [], ["'text'", "list<", "--text_column"]),
        ({"id": lambda number: {"a": number}}, [], ["'id'", "struct<a: int64>", "--id_column"]),
        ({"label": lambda number: {"a": number % 3}}, [], ["'label'", "struct<", "--label_column"]),
        ({"label": lambda number: [LABELS[number % 3]]}, [], ["'label'", "list<", "multi_label"]),
        ({"label": lambda number: f"a, {number % 3}"}, [], ["'a, 0'", "comma"]),
        ({"label": lambda number: f"{number % 3}" * 5000}, [], ["'00000", "1,000 letters"]),
        ({"label": "a"}, [], ["'a' alone", "two"]),
        ({"label": None}, [], ["no label", "--label_column"]),
        ({"label": lambda number: f"c{number}"}, [], ["24 labels in 24 rows", "--label_column"]),
        ({"label": lambda number: ["Good", "good"][number % 2]}, [], ["'Good' (12 rows)", "'good' (12)"]),
        ({"image": True}, [], ["'image'", "bool", "--image_column"]),
        ({}, ["--val_split", "validation"], ["'validation'", "no splits"]),
        ({}, ["--image_dir", "nowhere"], ["nowhere", "--image_dir"]),
        ({}, ["--data_dir", "elsewhere"], ["--data and --data_dir"]),
        ({}, ["--train_file", "other.txt"], ["--data and --train_file"]),
    ],
)
def test_a_column_or_flag_that_does_not_fit_is_told(columns, flags, words, write, write_shards):
    sentence = write_shards(write(draw_rows(**columns)), *flags)
    assert all(word in sentence for word in words), sentence


def test_what_is_wrong_with_a_row_of_a_table_is_not_told_of_files(write, write_shards, tmp_path):
    texts = {4: None, 5: " "}
    rows = draw_rows(text=lambda number: texts.get(number, f"text {number}"), image=None)
    assert "a\0b" not in write_shards(write([*rows, rows[0] | {"id": "a\0b", "text": "other"}], "r.jsonl"))["train"]
    entries = read_csv(tmp_path / "out" / "quarantine.csv")
    details = {row["guid"]: row["detail"] for row in entries if row["reason"] != "missing_image"}
    assert details == {
        "r4": "the cell is empty",
        "r5": "the cell is blank",
        "a\0b": "its name holds a NUL",
    }


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([None, "", "2", "a,b", "x\ny", "\x1b[31m", '"q', "../../x", "y" * 10_000], {"row-1", "row-2", "2", "a,b"}),
        ([None] * 9, {f"row-{number}" for number in range(1, 10)}),
        ([1.0, 2.0, 1234567.0, None, 4.0, 5.5], {"1", "2", "1234567", "row-4", "4", "5.5"}),
        ([9007199254740993, 1, 2, 3, 4, 5], {"9007199254740993"}),
        (["5_t1", "5", "6", "7", "8", "9", "10"], {"5_t1", "5"}),
    ],
)
def test_odd_names_of_rows_are_kept(names, found, write, write_shards):
    rows = draw_rows(len(names), id=names.__getitem__)
    split = write_shards(write(rows, "rows.jsonl"), "--val_ratio", 0)
    assert found <= set(split["train"])
    assert len(split["train"]) == len(names)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("1" * 900, "2" * 900), ["1" * 900, "2" * 900]),
        ((10, 9), ["9", "10"]),
        ((2.0, 1.0), ["1", "2"]),
        ((True, False), ["False", "True"]),
        (("a|b", "--c"), ["--c", "a|b"]),
        ((" b ", "a"), ["a", "b"]),
        (("\u00e9", "x", "e\u0301"), ["x", "\u00e9"]),
        ((datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)), ["2020-01-01", "2020-01-02"]),
    ],
)
def test_odd_labels_are_classes(labels, found, write, write_shards, tmp_path):
    write_shards(write(draw_rows(label=lambda number: labels[number % len(labels)])))
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["labels"] == found


def test_rows_for_prediction_need_no_label(write, tmp_path, capfd):
    path = write([{"text": row["text"]} for row in draw_rows()])
    words = ["--data", str(path), "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache")]
    assert shard.main([*words, "--for_prediction", "--val_data", str(path)]) == 2
    assert "--val_data" in capfd.readouterr().err
    assert shard.main([*words, "--for_prediction"]) == 0
    (path,) = (tmp_path / "out").glob("test-*.parquet")
    assert pq.read_table(path)["guid"].to_pylist() == [str(number) for number in range(1, 25)]


@pytest.mark.parametrize("named", [True, False])
def test_parts_that_number_their_rows_anew_are_told_apart(named, write, write_shards):
    rows = [draw_rows(count, first, id=lambda number: number % 100) for count, first in ((9, 100), (6, 200))]
    rows = (
        rows if named else [[{name: row[name] for name in ("text", "image", "label")} for row in part] for part in rows]
    )
    train, val = write(rows[0]), write(rows[1], "val.parquet")
    split, start = write_shards(train, "--val_data", val), 0 if named else 1
    assert split["train"] == [str(start + number) for number in range(9)]
    assert split["val"] == [f"val-{start + number}" for number in range(6)]


def test_the_same_rows_in_two_parts_are_refused(write, write_shards):
    path = write(draw_rows())
    assert "equal texts" in write_shards(path, "--val_data", path)
    assert "--val_ratio 0.5" in write_shards(
        path, "--val_data", write(draw_rows(9, 50), "v.parquet"), "--val_ratio", 0.5
    )


@pytest.mark.parametrize("kind", ["no column", "-1"])
def test_a_test_split_without_labels_is_left_out(kind, write_shards, tmp_path):
    train = Dataset.from_list(draw_rows()).cast_column("label", ClassLabel(names=list(LABELS)))
    test = train.remove_columns("label") if kind == "no column" else train.map(lambda _: {"label": -1})
    DatasetDict(train=train, test=test).save_to_disk(tmp_path / "saved")
    assert "test" not in write_shards(tmp_path / "saved")
    shutil.rmtree(tmp_path / "out")
    sentence = write_shards(tmp_path / "saved", "--test_split", "test")  # where it is asked for
    assert "test" in sentence.replace(str(tmp_path), "")


def test_classes_of_each_part_are_read_by_its_own_names(write_shards, tmp_path):
    rows = draw_rows(), draw_rows(9, 100)
    orders = list(LABELS), list(LABELS)[::-1]
    parts = [
        Dataset.from_list(each).cast_column("label", ClassLabel(names=names))
        for each, names in zip(rows, orders, strict=True)
    ]
    DatasetDict(train=parts[0], validation=parts[1]).save_to_disk(tmp_path / "saved")
    write_shards(tmp_path / "saved")
    (path,) = (tmp_path / "out").glob("validation-*.parquet")
    found = {row["guid"]: row["label"] for row in pq.read_table(path).to_pylist()}
    assert found == {row["id"]: row["label"] for row in rows[1]}


@pytest.mark.parametrize("part", ["data", "val_data", "test_data"])
def test_home_is_looked_for_in_every_path(part, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "train.txt").touch()
    arguments = DataArguments(**{"data": ["rows.csv"]} | {part: ["~/rows.csv"]})
    assert arguments.resolved()[part] == [str(tmp_path / "rows.csv")]
    assert DataArguments(data=["~/pairs"]).data_dir == str(tmp_path / "pairs")


@pytest.mark.parametrize(("content", "is_table"), [(b"a,b,c\r1,2,3\r", True), (b"p1,\rp2,\r", False), (b"", False)])
def test_a_csv_of_an_old_mac_may_be_a_list_or_a_table(content, is_table, tmp_path):
    (tmp_path / "asked.csv").write_bytes(content)
    assert names_table(str(tmp_path / "asked.csv"), DataArguments(data_dir=".")) == is_table


def test_data_arguments_refuse_what_names_no_table():
    for value in ([], [""], [5], "rows.csv"):
        with pytest.raises(InputError, match="--data"):
            DataArguments(data=value)
        with pytest.raises(InputError, match="--val_data"):
            DataArguments(data=["rows.csv"], val_data=value)
