"""load_pairs: columns, every kind of bad pair and of file in training and in prediction, row index, equal keys."""

import os
import time
from collections import Counter

import numpy as np
import pytest

from data_utils.prepare.pairs import add_row_index
from modeling.errors import InputError
from modeling.pictures import decode_picture

CORRUPT = b"\xff\xd8\xff this is no picture"


@pytest.fixture
def faulty(make_pairs):
    """A folder with one pair of each kind of bad file, and the guid of each."""
    folder = make_pairs(
        [
            ("1", "positive"),
            ("2", "neutral", None),
            ("3", "neutral", " \n"),
            ("4", "negative", "http://t.co/x @me"),
            ("5", "negative", "words", None),
            ("6", "positive", "words", CORRUPT),
            ("7", "positive", "words", b""),
            ("8", "neutral", None, None),
            ("9", "neutral", "words", None),
            ("10", "neutral", "words", None),
            ("11", "neutral", None),
            ("12", "positive"),
            ("13", "positive"),
        ]
    )
    os.mkfifo(folder / "data" / "9.jpg")
    (folder / "data" / "10.jpg").mkdir()
    (folder / "data" / "11.txt").mkdir()
    return folder


FAULTS = [
    ("2", "missing_text"),
    ("3", "empty_text"),
    ("4", "empty_text"),
    ("5", "missing_image"),
    ("6", "unreadable_image"),
    ("7", "unreadable_image"),
    ("8", "missing_text"),
    ("8", "missing_image"),
    ("9", "unreadable_image"),
    ("10", "unreadable_image"),
    ("11", "unreadable_text"),
]


def test_columns_and_types(make_pairs, load, small_picture):
    folder = make_pairs([("007", "positive", "Hi @you  there http://t.co/1"), ("2", "negative")])
    dataset = load(folder).dataset
    types = {name: feature.dtype for name, feature in dataset.features.items()}
    assert types == {
        "guid": "string",
        "label": "int64",
        "text": "string",
        "text_present": "bool",
        "image": "binary",
        "image_present": "bool",
        "text_key": "string",
        "image_key": "string",
    }
    row = dataset[0]
    assert (row["guid"], row["label"], row["text"]) == ("007", 2, "Hi there")
    assert row["text_present"] is row["image_present"] is True
    expected = decode_picture((folder / "data" / "007.jpg").read_bytes(), small_picture)
    assert row["image"] == expected.tobytes()


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".webp", ".JPG", ".WEBP"])
def test_other_endings_are_found_after_the_usual_ones(make_pairs, load, photo, suffix):
    folder = make_pairs(
        [("1", "positive", None, None), ("2", "negative"), ("3", "neutral", None), ("4", "neutral"), ("5", "neutral")]
    )
    usual = load(folder).dataset[0]
    for guid, text in (("1", "in capitals"), ("2", "another"), ("3", " ")):
        photo(guid).save(folder / "data" / f"{guid}{suffix}")
        (folder / "data" / f"{guid}.TXT").write_text(text)
    pairs = load(folder)
    assert pairs.dataset["text"][:3] == ["in capitals", "some words of pair 2", ""]
    assert all(pairs.dataset["image_present"][:])
    assert pairs.dataset[1]["image_key"] == usual["image_key"]
    assert [entry.detail for entry in pairs.quarantine] == ["3.TXT is blank"]


def test_mask_keeps_a_pair_with_one_modality(faulty, load):
    pairs = load(faulty)
    rows = {row["guid"]: row for row in pairs.dataset}
    assert list(rows) == ["1", "2", "3", "4", "5", "6", "7", "9", "10", "11", "12", "13"]
    assert [guid for guid, row in rows.items() if not row["text_present"]] == ["2", "3", "4", "11"]
    assert [guid for guid, row in rows.items() if not row["image_present"]] == ["5", "6", "7", "9", "10"]
    assert all(row["text"] == "" for row in rows.values() if not row["text_present"])
    assert all((row["image"] is None) == (not row["image_present"]) for row in rows.values())
    assert [(entry.guid, entry.reason) for entry in pairs.quarantine] == FAULTS
    first = next(iter(pairs.quarantine))
    assert (first.row, first.detail) == (3, "no 2.txt")
    assert {entry.action for entry in pairs.quarantine if entry.guid == "8"} == {"dropped"}
    assert {entry.action for entry in pairs.quarantine if entry.guid != "8"} == {"masked"}


def test_drop_leaves_bad_pairs_out(faulty, load):
    pairs = load(faulty, on_bad_pair="drop")
    assert pairs.dataset["guid"][:] == ["1", "12", "13"]
    assert Counter((entry.reason, entry.action) for entry in pairs.quarantine) == Counter(
        (reason, "dropped") for _, reason in FAULTS
    )


def test_error_names_the_first_and_counts_all(faulty, make_pairs, load):
    with pytest.raises(InputError, match=r"has 11 faults.*row 3 \('2'\): missing_text.*and 8 more.*mask"):
        load(faulty, on_bad_pair="error")
    folder = make_pairs([("1", "positive"), ("2", "great"), ("1", "positive")], folder="rows")
    for allowed in (False, True):
        with pytest.raises(InputError, match=r"unknown_label.*duplicate_guid"):
            load(folder, on_bad_pair="error", allow_data_loss=allowed)
    assert len(load(make_pairs([("1", "positive")], folder="sound"), on_bad_pair="error").dataset) == 1


@pytest.mark.parametrize(("mode", "action"), [("mask", "masked"), ("drop", "masked (a prediction drops no row)")])
def test_prediction_keeps_every_row_in_order(faulty, load, mode, action):
    guids = ["5", "../data/1", "1", "8", "5", "nobody", "/etc/passwd", "2", "1"]
    (faulty / "test.txt").write_text("guid,tag\n" + "".join(f"{guid},null\n" for guid in guids))
    pairs = load(faulty, list_name="test.txt", for_prediction=True, on_bad_pair=mode)
    dataset = pairs.dataset
    assert dataset["guid"][:] == guids
    assert set(dataset["label"][:]) == {-100}
    present = list(zip(dataset["text_present"][:], dataset["image_present"][:], strict=True))
    none, text, image, both = (False, False), (True, False), (False, True), (True, True)
    assert present == [text, none, both, none, text, none, none, image, both]
    actions = {(entry.guid, entry.reason): entry.action for entry in pairs.quarantine}
    assert actions[("5", "missing_image")] == action
    assert actions[("nobody", "missing_text")] == "both masked"
    assert actions[("../data/1", "invalid_guid")] == "both masked"
    assert [(e.row, e.action) for e in pairs.quarantine if e.reason == "duplicate_guid"] == [
        (6, "repeated"),
        (10, "repeated"),
    ]


def test_prediction_reads_the_labels_of_each_row(make_pairs, load):
    folder = make_pairs([("1", "positive"), ("2", "great"), ("1", "negative"), ("3", "null")])
    dataset = load(folder, for_prediction=True).dataset
    assert dataset["label"][:] == [2, -100, 0, -100]


def test_no_file_is_touched_for_an_invalid_guid(make_pairs, load, monkeypatch):
    folder = make_pairs([("../outside", "positive"), ("1", "positive")])
    (folder / "outside.txt").write_text("secret")
    asked = []
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, *args, **options: asked.append(str(path)) or real(path, *args, **options)
    )
    dataset = load(folder, for_prediction=True).dataset
    assert asked
    assert not [path for path in asked if "outside" in path]
    assert dataset[0]["text"] == ""


def test_encodings_are_counted(make_pairs, load):
    texts = ["plain", "等等…".encode("gb18030"), "再见…".encode("gb18030"), b"caf\xe9"]
    pairs = load(make_pairs([(str(number), "neutral", text) for number, text in enumerate(texts)]))
    assert pairs.dataset["text"][:] == ["plain", "等等…", "再见…", "café"]
    assert not len(pairs.quarantine)
    assert "2 texts are not UTF-8 and were decoded as gb18030" in pairs.quarantine.summary()
    assert (
        "1 texts are not UTF-8 and were decoded as cp1252 (encodings.csv), like 3: café" in pairs.quarantine.summary()
    )


def test_nothing_usable_says_where_files_were_looked_for(make_pairs, load, tmp_path):
    folder = make_pairs([("1", "positive", None, None), ("2", "neutral", None, None)])
    with pytest.raises(InputError, match=r"2 missing_text, 2 missing_image.*--data_dir"):
        load(folder)
    with pytest.raises(InputError, match=r"data folder .* does not exist"):
        load(tmp_path / "nowhere")


def test_keys_find_equal_texts_and_pictures(make_pairs, load, photo):
    rows = [
        ("1", "positive", "Good day http://t.co/1", photo("a")),
        ("2", "positive", "good  day", photo("b")),
        ("3", "neutral", "other", photo("a")),
        ("4", "neutral", "more", CORRUPT),
        ("5", "neutral", "most", CORRUPT),
    ]
    dataset = load(make_pairs(rows), text_cleaning="none").dataset
    texts, images = dataset["text_key"][:], dataset["image_key"][:]
    assert texts[0] == texts[1] != texts[2]
    assert images[0] == images[2] != images[1]
    assert images[3] is images[4] is None


def test_fingerprint_follows_the_content(make_pairs, load):
    rows = [("1", "positive", "words"), ("2", "neutral")]
    first = load(make_pairs(rows)).fingerprint
    assert load(make_pairs(rows, folder="copy")).fingerprint == first
    assert load(make_pairs(rows), text_cleaning="tweet").fingerprint != first
    assert load(make_pairs([("1", "negative", "words"), ("2", "neutral")], folder="label")).fingerprint != first
    assert load(make_pairs([("1", "positive", "word"), ("2", "neutral")], folder="text")).fingerprint != first


def test_row_index_counts_the_rows_of_this_dataset_and_copies_nothing(make_pairs, load, numbered_rows):
    dataset = load(make_pairs(numbered_rows(12))).dataset
    chosen = add_row_index(dataset.select([7, 2, 9]))
    assert chosen["row_index"][:] == [0, 1, 2]
    assert chosen["guid"][:] == ["107", "102", "109"]
    assert chosen.data.nbytes >= dataset.data.nbytes
    again = add_row_index(chosen.select([2, 0]))
    assert [(row["row_index"], row["guid"]) for row in again] == [(0, "109"), (1, "107")]
    assert add_row_index(dataset)["row_index"][:] == list(range(12))
    stored_together = add_row_index(dataset.select([0, 3, 4, 5]).select([1, 2, 3]))
    assert [(row["row_index"], row["guid"]) for row in stored_together] == [(0, "103"), (1, "104"), (2, "105")]
    with pytest.raises(ValueError, match="twice"):
        add_row_index(dataset.select([1, 1]))


def test_real_data_are_read(shared, load):
    folder, options = shared / "data" / "project5", {"for_prediction": True, "preprocessing_num_workers": None}
    pairs = load(folder, list_name="test_without_label.txt", **options)
    assert len(pairs.dataset) == 511
    assert Counter(entry.reason for entry in pairs.quarantine) == {"empty_text": 6}
    assert "118 texts are not UTF-8 and were decoded as gb18030 (encodings.csv), like " in pairs.quarantine.summary()
    assert {encoding for _, encoding, _ in pairs.quarantine.decoded} == {"gb18030"}
    assert np.all(pairs.dataset["image_present"][:])


def make_sparse(path):
    path.touch()
    os.truncate(path, 200 * 2**30)


KINDS = {make_sparse: "214,748,364,800 bytes; at most"}
KINDS |= dict.fromkeys((os.mkfifo, os.mkdir), "not a file")
KINDS |= {lambda path: path.symlink_to("/dev/zero"): "not a file", lambda path: path.symlink_to(path): "not a file"}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("ending", [".txt", ".jpg", ".png"])
def test_what_is_no_plain_file_is_masked_at_once(make, ending, make_pairs, load):
    folder = make_pairs([("1", "positive"), ("2", "negative")])
    (folder / "data" / ("1.txt" if ending == ".txt" else "1.jpg")).unlink()
    make(folder / "data" / f"1{ending}")
    start = time.monotonic()
    pairs = load(folder)
    assert time.monotonic() - start < 5
    (entry,) = pairs.quarantine
    reason = "unreadable_text" if ending == ".txt" else "unreadable_image"
    assert (entry.guid, entry.reason, entry.action) == ("1", reason, "masked")
    assert KINDS[make] in entry.detail


@pytest.mark.parametrize("number", ["7", "8"])
def test_large_picture_is_masked_with_the_flag_that_takes_it(number, make_pairs, load, photo):
    large = photo(1, (90, 60))
    folder = make_pairs([("7", "positive", "a"), ("8", "negative", "b")])
    (folder / "data" / f"{number}.jpg").unlink()
    large.save(folder / "data" / f"{number}.png")
    details = []
    for bound in (5399, 5400):
        details.append([(entry.guid, entry.detail) for entry in load(folder, max_image_pixels=bound).quarantine])
    ((guid, detail),) = details[0]
    assert guid == number
    assert detail.startswith(f"{number}.png: 90 x 60 pixels, more than --max_image_pixels 5399 allows")
    assert details[1] == []
