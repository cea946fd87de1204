"""Shards as other programs write them: labels, guids and names of every form, each read as what it says, or refused."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_reading import picture, read_all
from test_hostile_tars import write_tar

from data_utils.sources.quarantine import Reason
from data_utils.sources.row_losses import Fault
from data_utils.stream.rows import read_label
from modeling.errors import InputError


def read_column(tmp_path, **columns):
    count = len(next(iter(columns.values())))
    table = {"image": pa.array([picture()] * count), "text": ["a good day"] * count, "label": ["x"] * count, **columns}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    return read_all(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([b"positive", "très".encode("latin-1")]), ["positive", "très"]),
        (pa.array(["positive", None]).dictionary_encode(), ["positive", None]),
        (pa.array([2.0, float("nan")]), [2, None]),
        (pa.array([2, None], pa.uint8()), [2, None]),
        (pa.array([0.5, 1.0]), [0.5, 1]),
    ],
    ids=["bytes", "dictionary", "floats", "integers", "fractions"],
)
def test_labels_of_every_type_are_what_they_say(tmp_path, values, expected):
    assert [row.label for row in read_column(tmp_path, label=values)] == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([b"a", "日".encode()]), ["a", "日"]),
        (pa.array([12.0, float("nan")]), ["12", "a.parquet:1"]),
        (pa.array([987654321987654321, 1]), ["987654321987654321", "1"]),
    ],
    ids=["bytes", "floats", "integers"],
)
def test_guids_of_every_type_are_what_they_say(tmp_path, values, expected):
    assert [row.guid for row in read_column(tmp_path, guid=values)] == expected


def test_number_is_no_place_among_classes_that_are_numbers():
    labels = ("-1", "0", "1")
    assert [read_label(label, labels)[0] for label in (-1, "0", 1.0)] == [0, 1, 2]
    assert read_label(2, labels) == (-100, Fault(Reason.UNKNOWN_LABEL, "got 2; allowed: -1, 0, 1"))
    assert read_label(2, ("negative", "neutral", "positive"))[0] == 2


def test_label_in_another_spelling_of_unicode_is_the_label():
    assert read_label("ne\u0301gatif", ("n\u00e9gatif", "positif")) == (0, None)


def row(name):
    return {f"{name}.jpg": picture(), f"{name}.txt": b"a day", f"{name}.cls": b"1"}


@pytest.mark.parametrize("second", [row("photo.2"), {"photo.2.txt": b"a day", "photo.2.cls": b"1"}])
def test_rows_whose_names_have_dots_are_not_taken_as_one(tmp_path, second):
    write_tar(tmp_path / "a.tar", {**row("1"), **row("photo.1"), **second})
    with pytest.raises(InputError, match=r"photo\.1 and photo\.2 would be one row.* for the dots within names"):
        read_all(tmp_path)


def test_more_pictures_and_texts_of_a_row_are_no_rows(tmp_path):
    more = {"1.crop.jpg": b"x", "1.crop.txt": b"x", "1.ocr.json": b"{}"}
    write_tar(tmp_path / "a.tar", {**row("1"), **more, **row("2"), "2.large.jpg": b"x"})
    assert [(row.guid, row.text) for row in read_all(tmp_path)] == [("1", "a day"), ("2", "a day")]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (POINTER, "git lfs pull"),
        (b"<!DOCTYPE html><title>Not found", "an HTML page"),
        (gzip.compress(b"x" * 10_000), "a gzip archive; unpack it"),
    ],
    ids=["pointer", "page", "gzip"],
)
def test_what_stands_in_the_place_of_a_shard_is_named(tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=named):
        read_all(tmp_path)


def test_compressed_tars_are_named(tmp_path):
    (tmp_path / "train-0.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"train-0\.tar\.gz is compressed; unpack it to a \.tar"):
        read_all(tmp_path)
