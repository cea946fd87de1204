"""Shards as other programs write them: columns, labels, guids and texts of every form, and places of every kind."""

import gzip
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value
from encoded_sentences import SENTENCES
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from shard_reading import POINTER, read_all, tar_row, tar_rows, write_table, write_tar

from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import find_text_encoding, iterate_shard, read_texts
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import find_shards
from modeling.errors import InputError

PATHS = pa.struct({"bytes": "binary", "path": "string"})
RUSSIAN = [f"{SENTENCES['russian'][number % 6]} {number}" for number in range(12)]


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
    write_table(tmp_path / "a.parquet", count=2, label=values)
    assert [row.label for row in read_all(tmp_path)] == expected


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
    write_table(tmp_path / "a.parquet", count=2, guid=values)
    assert [row.guid for row in read_all(tmp_path)] == expected


def test_class_names_of_datasets_are_the_labels(tmp_path):
    label = ClassLabel(names=["positive", "negative"])
    features = Features({"id": Value("int64"), "text": Value("string"), "label": label, "image": Image()})
    image = {"bytes": b"png", "path": None}
    rows = {"id": [7, 8, 9], "text": ["a", "b", "c"], "label": [1, -1, 2], "image": [image] * 3}
    pq.write_table(pa.table(rows, schema=features.arrow_schema), tmp_path / "part0.parquet")
    found = read_all(tmp_path)
    assert [(row.guid, row.label) for row in found] == [("7", "negative"), ("8", None), ("9", "class 2 of 2")]
    assert found[0].image == b"png"
    shards = find_shards(f"{tmp_path}/*.parquet", "train")
    assert (shards.num_rows, shards.label_counts) == (3, None)


def test_texts_may_be_bytes(tmp_path):
    write_table(tmp_path / "a.parquet", count=3, text=["ein schöner Tag".encode(), b"caf\xe9", None])
    assert [row.text for row in read_all(tmp_path)] == ["ein schöner Tag", "café", None]
    assert read_texts(find_shards(str(tmp_path), "train"), limit=3) == ["ein schöner Tag", "café", ""]


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("codec", ["koi8_r", "cp1251", "utf-16-le", "utf-8"])
def test_encoding_of_texts_is_found_by_all_of_them(tmp_path, kind, codec):
    texts = [text.encode(codec) for text in RUSSIAN]
    if kind == "parquet":
        write_table(tmp_path / "a.parquet", count=len(texts), text=texts)
    else:
        rows = [tar_row(f"{number:02d}", text=text) for number, text in enumerate(texts)]
        write_tar(tmp_path / "a.tar", {name: content for row in rows for name, content in row.items()})
    shards = find_shards(str(tmp_path), "train")
    chosen = find_text_encoding(shards, limit=100)
    assert chosen == (None if codec.startswith("utf") else codec)
    assert read_texts(shards.with_text_encoding(chosen), limit=5) == RUSSIAN[:5]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"text": list(range(8))}, "text as int64"),
        ({"image": [{"data": b"x", "path": "x"}] * 8}, "image as struct"),
        ({"image": pa.array([{"bytes": None, "path": "x.jpg"}] * 8, PATHS)}, "paths but no bytes"),
        ({"text": None}, "image, label"),
        ({"image": None, "picture": [b"x"] * 8}, "label, picture, text"),
    ],
)
def test_columns_that_hold_no_texts_or_pictures_are_named(tmp_path, columns, named):
    write_table(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputError, match=rf"holds .*{named}.*; needed are the columns image \(struct"):
        read_all(tmp_path)


def test_rows_without_a_picture_are_no_rows_with_paths(tmp_path):
    write_table(tmp_path / "a.parquet", image=pa.array([{"bytes": None, "path": None}] * 8, PATHS))
    assert read_all(tmp_path)[0].image is None


def test_shard_that_lacks_a_column_of_the_first_is_named(tmp_path):
    write_table(tmp_path / "a.parquet")
    write_table(tmp_path / "b.parquet", count=1, text=None)
    shards = find_shards(str(tmp_path), "train")
    with pytest.raises(ShardError, match=r"b\.parquet has no column text"):
        next(iterate_shard(shards.shards[1], shards.kind))


def test_rows_of_a_tar_are_what_their_files_say(tmp_path):
    files = {"x/0.jpg": b"jpeg", "x/0.txt": b"words", "x/0.cls": b"2\n", "x/1.png": b"", "x/1.json": b'{"label": 1}'}
    write_tar(tmp_path / "00000.tar", files)
    with fsspec.open("memory://foreign/00000.tar", "wb") as file:
        file.write((tmp_path / "00000.tar").read_bytes())
    assert find_shards("memory://foreign", "train").num_rows is None
    found = read_all("memory://foreign")
    assert [(row.guid, row.text, row.label) for row in found] == [("x/0", "words", "2"), ("x/1", None, 1)]


def test_empty_first_tar_is_passed_over_and_labels_may_begin_behind_rows_without_one(tmp_path):
    write_tar(tmp_path / "0.tar", {})
    rows = {name: each for name, each in tar_rows(map(str, range(40))).items() if not name.endswith(".cls")}
    labels = {f"{number}.json": b'{"label": null}' for number in range(39)} | {"39.json": b'{"label": "positive"}'}
    write_tar(tmp_path / "1.tar", dict(sorted({**rows, **labels}.items())))
    assert {row.guid: row.label for row in read_all(tmp_path)} == dict.fromkeys(map(str, range(39))) | {
        "39": "positive"
    }


def test_spoilt_json_spoils_its_row_alone(tmp_path):
    details = [b'{"label": 1}', b'{"label": 2, "guid": "caf\xe9"}', b'{"label": 1', b"7", b"null", b'{"label": "x"}']
    files = {f"{number}.{ending}": b"x" for number in range(8) for ending in ("jpg", "txt")}
    files |= {f"{number}.json": content for number, content in enumerate(details)}
    write_tar(tmp_path / "0.tar", dict(sorted(files.items())))
    found = read_all(tmp_path)
    assert [row.label for row in found] == [1, 2, '{"label": 1 (no JSON)', None, None, "x", None, None]
    assert found[1].guid == "café"


@pytest.mark.parametrize("second", [tar_row("photo.2"), {"photo.2.txt": b"a day", "photo.2.cls": b"1"}])
def test_rows_whose_names_have_dots_are_not_taken_as_one(tmp_path, second):
    write_tar(tmp_path / "a.tar", {**tar_row("1"), **tar_row("photo.1"), **second})
    with pytest.raises(InputError, match=r"photo\.1 and photo\.2 would be one row.* for the dots within names"):
        read_all(tmp_path)


def test_more_pictures_and_texts_of_a_row_are_no_rows(tmp_path):
    more = {"1.crop.jpg": b"x", "1.crop.txt": b"x", "1.ocr.json": b"{}"}
    write_tar(tmp_path / "a.tar", {**tar_row("1"), **more, **tar_row("2"), "2.large.jpg": b"x"})
    assert [(row.guid, row.text) for row in read_all(tmp_path)] == [("1", "a good day"), ("2", "a good day")]


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


@pytest.mark.parametrize("name", ["x_9.tar", "x.parquet", "x_[1]", "x*"])
def test_folder_may_be_named_like_a_file_or_a_glob(write_shards, numbered_rows, name):
    folder = write_shards(numbered_rows(20), "--shard_format", "webdataset", name=name)
    shards = find_shards(str(folder), "train")
    assert shards.num_rows == len(read_all(folder)), "counted by its shards.json"
    (folder / MANIFEST).unlink()
    assert [shard.name for shard in find_shards(str(folder), "train").shards] == [s.name for s in shards.shards]


@pytest.mark.parametrize(
    "url",
    [
        "zip://*.parquet::{folder}/F.zip",
        "zip://::{folder}/F.zip",
        "zip://a.parquet::file://{folder}/F.zip",
        "simplecache::file://{folder}/*.parquet",
        "dir://*.parquet::{folder}",
        "zip://*.parquet::simplecache::file://{folder}/F.zip",
        "{folder}/a::b",
    ],
)
def test_chain_of_a_url_is_kept(tmp_path, url):
    for path in (tmp_path / "a.parquet", tmp_path / "a::b" / "a.parquet"):
        write_table(path, count=2)
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "a.parquet")
    location = url.format(folder=tmp_path)
    assert len(read_all(location)) == find_shards(location, "train").num_rows == 2


def test_url_that_cannot_be_opened_is_one_sentence(monkeypatch):
    class LostFileSystem(MemoryFileSystem):
        """Its errors are no OSErrors, as those of hf:// without a network."""

        protocol = "lost"

        def isfile(self, path):
            raise RuntimeError("no\nnetwork")

    fsspec.register_implementation("lost", LostFileSystem, clobber=True)
    missing = {"class": "no_such_package.FileSystem", "err": "Install x"}
    monkeypatch.setitem(known_implementations, "uninstalled", missing)
    for url, message in (
        ("foo://bar/x", "ValueError: Protocol not known: foo"),
        ("uninstalled://bar/x", "ImportError: Install x"),
        ("lost://bar/x", "RuntimeError: no network"),
    ):
        with pytest.raises(InputError, match=f"The shards in {url} can't be read \\({message}\\); check --data_dir"):
            find_shards(url, "train")
