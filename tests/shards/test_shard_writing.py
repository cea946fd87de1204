"""python -m data_utils.shard: what goes in comes out, in both formats, once."""

import csv
import json
import runpy
import sys

import pytest
from datasets import load_dataset
from encoded_sentences import SENTENCES
from shard_reading import content_of, read_all

from data_utils import shard
from data_utils.shards.read import read_texts
from data_utils.shards.shard_set import find_shards
from data_utils.splits.split_file import load_split

FORMATS = ("parquet", "webdataset")
MOODS = ("joy", "fear", "positive")


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_come_out_as_they_went_in(write_shards, numbered_rows, tmp_path, kind):
    labels = dict(numbered_rows(40))
    rows = [(guid, label, f"TEXT of {guid} http://t.co/x") for guid, label in labels.items()]
    folder = write_shards(rows, "--shard_format", kind)
    split = load_split(folder / "split.json")
    for part, guids in (("train", split.train), ("validation", split.val)):
        found = read_all(folder, part)
        assert sorted(row.guid for row in found) == list(guids)
        for row in found:
            assert row.image == (tmp_path / "pairs" / "data" / f"{row.guid}.jpg").read_bytes(), "the file's own bytes"
            assert (row.text, row.label) == (f"TEXT of {row.guid} http://t.co/x", labels[row.guid])
    shards = find_shards(str(folder), "train")
    assert {each.rows for each in shards.shards[:-1]} == {7}
    assert shards.num_rows == shards.label_counts.total() == len(split.train)
    assert [row.guid for row in read_all(folder)] != sorted(split.train), "a sorted list is mixed"
    ending, image = {"parquet": ("parquet", "image"), "webdataset": ("tar", "jpg")}[kind]
    rows = list(load_dataset(kind, data_files=f"{folder}/train-*.{ending}", split="train", streaming=True))
    assert (len(rows), rows[0][image].size) == (shards.num_rows, (48, 36))


def test_twins_stay_in_one_part_unless_a_split_with_a_leak_is_accepted(write_shards, capsys):
    rows = [(f"{number}{twin}", "positive", f"words {number}") for number in range(30) for twin in "ab"]
    folder = write_shards(rows, "--val_ratio", "0.3")
    parts = [{row.guid[:-1] for row in read_all(folder, part)} for part in ("train", "validation")]
    assert all(parts)
    assert not parts[0] & parts[1]
    split = load_split(folder / "split.json")
    leaky = folder.parent / "leaky.json"
    leaky.write_text(json.dumps({"train": [*split.train, split.val[0]], "val": split.val[1:]}))
    write_shards(rows, "--split_file", str(leaky), name="leaky", code=2)
    assert "accept it with --allow_leaky_split" in capsys.readouterr().err
    write_shards(rows, "--split_file", str(leaky), "--allow_leaky_split", name="leaky")


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
    ("flags", "message"),
    [
        *(
            (["--for_prediction", flag, value], f"Got {flag} {value} with --for_prediction, which writes every row")
            for flag, value in (
                *(("--split_file", "x.json"), ("--val_ratio", "0.1"), ("--seed", "42"), ("--on_bad_pair", "drop")),
                ("--allow_data_loss", "True"),
            )
        ),
        (["--unknown"], "Got '--unknown', which is no flag of "),
        (["--seed", "x"], "Argument --seed: invalid int value: 'x'"),
        (["--seed", "-1"], "Got --seed -1; it must be 0 or more"),
        (["--text_encoding", "windows-12520"], "no text encoding that Python knows"),
    ],
)
def test_flags_that_cannot_be_used_are_one_sentence(tmp_path, capsys, flags, message):
    assert shard.main(["--data_dir", "D", "--output_dir", str(tmp_path / "S"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "S").exists()


def test_list_that_is_not_parted_by_commas_is_refused(write_shards, numbered_rows, tmp_path, capsys):
    write_shards(numbered_rows(9), name="first")
    (tmp_path / "pairs" / "list.txt").write_text("guid;tag\n1;null\n2;null\n")
    words = ["--data_dir", str(tmp_path / "pairs"), "--output_dir", str(tmp_path / "none"), "--train_file", "list.txt"]
    assert shard.main([*words, "--cache_dir", str(tmp_path / "cache"), "--for_prediction"]) == 2
    assert "read as the guid 'guid;tag'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_list_with_large_losses_is_refused(write_shards, capsys):
    rows = [(str(number), MOODS[number % 3]) for number in range(60)]
    named = ["--labels", "negative", "neutral", "positive"]
    write_shards(rows, *named, code=2)
    message = capsys.readouterr().err
    assert "40 of 60 rows" in message
    assert "`--labels positive fear joy`. To train all the same on what there is: --allow_data_loss." in message
    write_shards(rows, *named, "--allow_data_loss", name="more")


def test_faulty_rows_are_in_quarantine_and_counted_on_the_screen(make_pairs, tmp_path, monkeypatch, caplog):
    rows = [("1", "positive", "x", b"broken"), ("2", "glad"), ("3", "negative", None), ("4", "neutral", None, None)]
    folder, output = make_pairs([*rows, *((str(number), "positive") for number in range(10, 20))]), tmp_path / "out"
    words = ["--data_dir", str(folder), "--output_dir", str(output), "--cache_dir", str(tmp_path / "cache")]
    monkeypatch.setattr("sys.argv", ["shard", *words, "--val_ratio", "0", "--preprocessing_num_workers", "1"])
    monkeypatch.delitem(sys.modules, "data_utils.shard")  # or runpy warns that it is imported already
    with pytest.raises(SystemExit) as ending:
        runpy.run_module("data_utils.shard", run_name="__main__")
    assert ending.value.code == 0
    assert "missing_image" in caplog.text
    with (output / "quarantine.csv").open() as file:
        entries = {(row["guid"], row["reason"], row["action"]) for row in csv.DictReader(file)}
    assert entries == {
        ("1", "unreadable_image", "masked"),
        ("2", "unknown_label", "dropped"),
        ("3", "missing_text", "masked"),
        ("4", "missing_text", "dropped"),
        ("4", "missing_image", "dropped"),
    }
    assert len(read_all(output)) == 12
    assert find_shards(str(output), "validation") is None


def test_texts_are_decoded_by_all_of_them(write_shards):
    texts = [f"{SENTENCES['russian'][number % 6]} {number}" for number in range(12)]
    rows = [(str(number), "positive", text.encode("koi8_r")) for number, text in enumerate(texts)]
    folder = write_shards(rows, "--for_prediction")
    assert read_texts(find_shards(str(folder), "test"), limit=99) == texts
    with (folder / "encodings.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["guid"], row["encoding"]) for row in csv.DictReader(file)] == [(row[0], "koi8_r") for row in rows]
    other = write_shards(rows, "--for_prediction", "--text_encoding", "cp1251", name="other")
    wrong = [text.encode("koi8_r").decode("cp1251") for text in texts]
    assert read_texts(find_shards(str(other), "test"), limit=99) == wrong


def test_processes_write_what_one_writes(write_shards, numbered_rows):
    rows = numbered_rows(30)
    one, two = write_shards(rows), write_shards(rows, "--preprocessing_num_workers", "2", name="two")
    assert content_of(one) == content_of(two)
