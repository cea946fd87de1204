"""The same rows come out of every format, folder and place; splits become parts; nothing is parsed twice."""

from __future__ import annotations

import io
import logging
import os

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from conftest import draw_photo
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List
from tables.table_files import ROWS, encode_rows, write_rows

from data_utils.sources.arguments import DataArguments
from data_utils.tables import files, reading
from data_utils.tables.reading import read_asked, read_parts
from modeling.errors import InputError

NAMES = (
    *("a.csv", "a.tsv", "a.json", "a.jsonl", "a.ndjson", "a.parquet", "stream.arrow", "file.arrow"),
    *("a.csv.gz", "a.tsv.gz", "A.JSON", "a.jsonl.GZ"),
)


@pytest.fixture
def make(tmp_path):
    """The arguments for data that lie in `tmp_path`, or are named otherwise."""

    def run(*names, **options):
        named = [name if "://" in name else str(tmp_path / name) for name in names]
        return DataArguments(data_dir=str(tmp_path), data=named, cache_dir=str(tmp_path / "cache"), **options)

    return run


@pytest.fixture
def train_rows(make):
    return lambda *names, **options: read_parts(make(*names, **options))["train"].dataset.to_list()


def save_splits(path, **splits):
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(path)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_rows(name, tmp_path, make, train_rows):
    write_rows(tmp_path / name.lower())
    os.rename(tmp_path / name.lower(), tmp_path / name)

    assert train_rows(name) == ROWS
    table = read_asked("--predict", [str(tmp_path / name)], make("elsewhere"))
    assert table.dataset.to_list() == ROWS
    assert table.folder == str(tmp_path)
    assert table.dataset.cache_files, "not memory-mapped"


def test_one_object_a_line_is_read_from_json_too(tmp_path, train_rows):
    (tmp_path / "a.json").write_bytes(encode_rows("a.jsonl", ROWS))
    assert train_rows("a.json") == ROWS


@pytest.mark.parametrize("kept", ["plain", "splits"])
def test_saved_data_sets_are_read(kept, tmp_path, make):
    if kept == "plain":
        Dataset.from_list(ROWS).save_to_disk(tmp_path / kept)
    else:
        save_splits(tmp_path / kept, train=ROWS, dev=ROWS[:2], test=ROWS[2:])
    parts = {part: table.dataset.to_list() for part, table in read_parts(make(kept)).items()}
    assert parts == ({"train": ROWS} if kept == "plain" else {"train": ROWS, "val": ROWS[:2], "test": ROWS[2:]})


def test_several_files_globs_and_formats_are_put_below_each_other(tmp_path, train_rows):
    for number, name in enumerate(("b.csv", "c1.jsonl", "c2.parquet")):
        write_rows(tmp_path / name, ROWS[2 * number : 2 * number + 2])
    assert train_rows("b.csv", "c*") == ROWS


def test_urls_are_read_and_their_changes_noticed(train_rows):
    memory = fsspec.filesystem("memory")
    memory.pipe("/tables/a.csv", encode_rows("a.csv", ROWS))
    assert train_rows("memory://tables/a.csv") == ROWS
    memory.pipe("/tables/a.csv", encode_rows("a.csv", ROWS[:3]))
    assert train_rows("memory://tables/*.csv") == ROWS[:3]


def test_a_second_start_parses_nothing_and_a_changed_file_is_noticed(tmp_path, train_rows, monkeypatch):
    write_rows(tmp_path / "a.csv")
    train_rows("a.csv")
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_csv", None)
        assert train_rows("a.csv") == ROWS
    write_rows(tmp_path / "a.csv", ROWS[:2])
    assert train_rows("a.csv") == ROWS[:2]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_texts_are_decoded(encoding, tmp_path, train_rows):
    (tmp_path / "a.csv").write_bytes(
        "id,text\n1,na\u00efve caf\u00e9\n2,\u201cr\u00e9sum\u00e9\u201d\n".encode(encoding)
    )
    assert [row["text"] for row in train_rows("a.csv")] == ["na\u00efve caf\u00e9", "\u201cr\u00e9sum\u00e9\u201d"]


def test_one_line_of_another_encoding_changes_no_other(tmp_path, train_rows):
    (tmp_path / "a.csv").write_bytes("text\ncaf\u00e9\n".encode() + b"it\x92s\n")
    assert [row["text"] for row in train_rows("a.csv")] == ["caf\u00e9", "it\u2019s"]
    (tmp_path / "b.csv").write_bytes("text\n\u043c\u0438\u0440\n".encode("koi8_r"))
    assert train_rows("b.csv", text_encoding="koi8_r") == [{"text": "\u043c\u0438\u0440"}]


def test_cells_stay_as_they_are(tmp_path, train_rows):
    cells = ["007", "1e5", "NaN", "", " x ", 'say "so"', "None", "\u2028", "x" * 300_000]
    write_rows(tmp_path / "a.csv", [{"a": cell, "b": "y"} for cell in cells])
    assert [row["a"] for row in train_rows("a.csv")] == cells


def test_quotes_within_plain_cells_are_kept(tmp_path, train_rows):
    (tmp_path / "a.csv").write_text('id,text\n\n1,a 5" screen\n2,"b"\n')
    assert [row["text"] for row in train_rows("a.csv")] == ['a 5" screen', "b"]


def test_quotes_of_a_tsv_that_quotes_no_cell_swallow_no_line(tmp_path, train_rows):
    texts = ['"a', 'b "c"', '"d" e', 'f"', '"', '"g', '"h ""i"" j"', '"k"']
    plain = "".join(f"{number}\t{text}\tx\r\n" for number, text in enumerate(texts))
    (tmp_path / "rows.tsv").write_bytes(f"id\ttext\tlabel\r\n{plain}".encode())
    found = [row["text"] for row in train_rows("rows.tsv")]
    assert found == [*texts[:-2], 'h "i" j', "k"]

    (tmp_path / "quoted.tsv").write_text('id\ttext\tlabel\n1\t"a\nb\t""c"\tx\n2\t"d"\ty\n')
    assert [row["text"] for row in train_rows("quoted.tsv")] == ['a\nb\t"c', "d"]
    (tmp_path / "one.tsv").write_text('text\n"a\nb"\n')
    assert [row["text"] for row in train_rows("one.tsv")] == ["a\nb"]


def test_json_values_keep_their_types_and_mixed_ones_are_texts(tmp_path, train_rows):
    (tmp_path / "a.jsonl").write_text(
        '{"n": 1, "mixed": true, "l": ["a"]}\n{"n": 2, "mixed": "x"}\n\n'
        '{"n": null, "mixed": 2.5, "big": 99999999999999999999}\n{"n": 4, "mixed": [1], "big": 1}'
    )
    rows = train_rows("a.jsonl")
    assert [row["n"] for row in rows] == [1, 2, None, 4]
    assert [row["mixed"] for row in rows] == ["true", "x", "2.5", "[1]"]
    assert [row["l"] for row in rows] == [["a"], None, None, None]
    assert [row["big"] for row in rows] == [None, None, "99999999999999999999", "1"]


@pytest.mark.parametrize("kept", ["a.parquet", "saved"])
def test_pictures_and_classes_are_not_decoded(kept, tmp_path, make):
    buffer = io.BytesIO()
    draw_photo().save(buffer, "PNG")
    picture = {"bytes": buffer.getvalue(), "path": None}
    features = Features({"image": Image(), "more": List(Image()), "label": ClassLabel(names=["x", "y"])})
    dataset = Dataset.from_dict({"image": [picture], "more": [[picture]], "label": [1]}, features=features)
    dataset.save_to_disk(tmp_path / kept) if kept == "saved" else dataset.to_parquet(tmp_path / kept)
    read = read_parts(make(kept))["train"].dataset
    assert read[0] == {"image": picture, "more": [picture], "label": 1}
    assert read.features["label"].names == ["x", "y"]


def test_categories_are_read_as_their_texts(tmp_path, train_rows):
    table = datasets.table.pa.table({"label": datasets.table.pa.array(["p", "n", "p"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    assert train_rows("a.parquet") == [{"label": "p"}, {"label": "n"}, {"label": "p"}]


def write_pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_photo(name, (8, 8)).save(folder / name)


def test_pictures_by_class_and_split_are_read_as_by_datasets(tmp_path, make):
    names = ("a/1.jpg", "a/2.png", "b/1.jpg")
    for split in ("train", "val"):
        write_pictures(tmp_path / "images" / split, *names)
    (tmp_path / "images" / ".cache").mkdir()
    parts = read_parts(make("images"))
    assert set(parts) == {"train", "val"}
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "theirs"))
    theirs = theirs["train"].cast_column("image", Image(decode=False))
    ours = parts["train"].dataset
    assert ours.features["label"] == theirs.features["label"]
    paths = [os.path.join(parts["train"].folder, name) for name in ours["image"]]
    assert sorted(zip(paths, ours["label"], strict=True)) == sorted(
        (row["image"]["path"], row["label"]) for row in theirs
    )


def test_pictures_alone_have_no_labels(tmp_path, make):
    write_pictures(tmp_path / "images", "2.jpg", "1.jpg")
    assert read_asked("--predict", [str(tmp_path / "images")], make("x")).dataset.to_list() == [
        {"image": "1.jpg"},
        {"image": "2.jpg"},
    ]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_names_the_pictures(name, tmp_path, make):
    write_pictures(tmp_path / "images" / "train", "1.jpg")
    write_rows(tmp_path / "images" / "train" / name, [{"file_name": "1.jpg", "id": "007"}])
    table = read_parts(make("images"))["train"]
    assert table.dataset.to_list() == [{"image": "1.jpg", "id": "007"}]
    assert table.folder == str(tmp_path / "images" / "train")


SINGLE = "ID\ttext,image\n1\tneutral,positive\n2\tpositive,negative\n3\tnegative,negative\n4\tpositive,neutral\n"
MULTIPLE = (
    "ID\ttext,image\ttext,image\ttext,image\n1\tneutral,positive\tneutral,positive\tpositive,negative\n"
    "2\tpositive,negative\tneutral,negative\tnegative,negative\n"
    "3\tnegative,negative\tnegative,neutral\tpositive,negative\n"
    "4\tpositive,positive\tpositive,negative\tneutral,negative\n"
)


@pytest.mark.parametrize(
    ("listed", "labels"),
    [(SINGLE, {"1": "positive", "3": "negative", "4": "positive"}), (MULTIPLE, {"1": "positive", "3": "negative"})],
    ids=["single", "multiple"],
)
def test_mvsa_labels_are_merged_by_the_published_rule(listed, labels, tmp_path, make, caplog):
    write_pictures(tmp_path / "mvsa" / "data", "1.jpg", "3.jpg")
    for guid in "134":
        (tmp_path / "mvsa" / "data" / f"{guid}.txt").write_bytes(f"\u5929\u6c14 {guid} \u2026".encode("gb18030"))
    (tmp_path / "mvsa" / "labelResultAll.txt").write_text(listed)
    with caplog.at_level(logging.INFO):
        table = read_parts(make("mvsa"))["train"]
    assert dict(zip(table.dataset["id"], table.dataset["label"], strict=True)) == labels
    assert table.dataset[0] == {"id": "1", "text": "\u5929\u6c14 1 \u2026", "image": "1.jpg", "label": "positive"}
    assert table.folder == str(tmp_path / "mvsa" / "data")
    assert f"{4 - len(labels)} rows are left out" in caplog.text


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, {"train": 5, "val": 3, "test": 2}),
        ({"val_split": "none", "test_split": "none"}, {"train": 5}),
        ({"train_split": "more"}, {"train": 4, "val": 3, "test": 2}),
        ({"val_split": "test"}, {"train": 5, "val": 2}),
        ({"train_split": "test", "test_split": "train"}, {"train": 2, "val": 3, "test": 5}),
    ],
)
def test_splits_become_parts(options, sizes, tmp_path, make):
    save_splits(tmp_path / "saved", train=ROWS[:5], more=ROWS[:4], val=ROWS[:3], test=ROWS[:2])
    parts = read_parts(make("saved", **options))
    assert {part: len(table.dataset) for part, table in parts.items()} == sizes


def test_parts_lie_in_files_of_their_own(tmp_path, make):
    write_rows(tmp_path / "a.csv")
    write_rows(tmp_path / "v.jsonl", ROWS[:2])
    save_splits(tmp_path / "saved", train=ROWS, test=ROWS[:3])
    parts = read_parts(make("a.csv", val_data=[str(tmp_path / "v.jsonl")], test_data=[str(tmp_path / "saved")]))
    assert {part: len(table.dataset) for part, table in parts.items()} == {"train": 6, "val": 2, "test": 3}


def test_the_rows_of_a_prediction_are_of_one_split(tmp_path, make):
    save_splits(tmp_path / "saved", train=ROWS, test=ROWS[:3])
    save_splits(tmp_path / "one", dev=ROWS[:2])
    assert len(read_asked("--predict", [str(tmp_path / "saved")], make("x")).dataset) == 3
    assert len(read_asked("--predict", [str(tmp_path / "saved")], make("x", test_split="train")).dataset) == 6
    assert len(read_asked("--predict", [str(tmp_path / "one")], make("x")).dataset) == 2


def test_a_folder_of_pairs_is_no_table(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    assert DataArguments(data=[str(folder)]).data == [str(folder)]
    (folder / "train.txt").write_text("guid,tag\n")
    data = DataArguments(data=[str(folder)])
    assert (data.data, data.data_dir) == (None, str(folder))


def test_data_sets_of_the_hub_come_by_split(make, monkeypatch, tmp_path):
    asked = []

    def answer(*words, **options):
        asked.append((words, options))
        return DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:2]))

    monkeypatch.setattr(reading, "load_dataset", answer)
    data = DataArguments(data_dir="x", data=["someone/some-set:en"], cache_dir=str(tmp_path))
    parts = read_parts(data)
    assert {part: len(table.dataset) for part, table in parts.items()} == {"train": 6, "test": 2}
    assert asked == [(("someone/some-set", "en"), {"cache_dir": str(tmp_path / "hub")})]


def test_a_data_set_that_the_hub_does_not_give_is_told(tmp_path):
    data = DataArguments(data_dir="x", data=["someone/nothing"], cache_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"someone/nothing .*hub"):
        read_parts(data)
