"""Shards with any bit turned, manifests that say what can't be, chained URLs: read, or one sentence that names them."""

import json
import os
import random
import struct
import zipfile
from dataclasses import replace

import pytest
from shard_reading import read_all, write_table

from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import find_shards
from modeling.errors import InputError


def read_each(path, contents):
    """Read a shard of each of `contents`; other errors than ours, and those that don't name it, are raised."""
    for content in contents:
        path.write_bytes(content)
        try:
            read_all(path)
        except (InputError, ShardError) as error:
            if path.name not in str(error):
                raise AssertionError(f"{error} does not name the shard") from error


@pytest.mark.parametrize("part", ["footer", "data"])
def test_parquet_with_any_bit_turned_neither_ends_the_process_nor_brings_a_traceback(tmp_path, part):
    path = tmp_path / "a.parquet"
    write_table(path)
    sound = path.read_bytes()
    begin = len(sound) - 8 - struct.unpack("<I", sound[-8:-4])[0]
    bits = range(8 * begin, 8 * len(sound)) if part == "footer" else range(8 * begin)

    def turn(bit):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        return bytes(content)

    child = os.fork()  # Arrow would end the process by a signal
    if child == 0:
        code = 1
        try:
            read_each(path, map(turn, random.Random(0).sample(bits, 400 if part == "footer" else 100)))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_parquet_of_200_gigabytes_is_refused(tmp_path):
    write_table(tmp_path / "a.parquet")
    os.truncate(tmp_path / "a.parquet", 200 * 2**30)
    with pytest.raises(InputError, match=r"a\.parquet can't be read"):
        read_all(tmp_path)


def test_parquet_whose_counts_of_rows_contradict_each_other_is_refused(tmp_path):
    write_table(tmp_path / "a.parquet", count=3)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    refused = 0
    for place in (place for place in range(footer, len(content)) if content[place] == 6):  # Thrift's 3
        (tmp_path / "a.parquet").write_bytes(content[:place] + b"\x04" + content[place + 1 :])
        try:
            rows = read_all(tmp_path / "a.parquet")
        except (InputError, ShardError) as error:
            refused += "its footer says" in str(error)
        else:
            assert len(rows) == 3
    assert refused == 2, "the count of the file and that of its row group"


def entry(**changes):
    return {"file": "train-00000-of-00001.tar", "rows": 3, "bytes": 9999, "labels": {"positive": 3}} | changes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"file": "train-00000-of-00001.tar", "rows": 3, "labels": {}}], "parts.train.0: no bytes"),
        ([entry(rows=2)], "has 2 rows, 3 labels and 9999 bytes, which can't be"),
        ([entry(bytes=2)], "and 2 bytes, which can't be"),
        *(
            ([entry(rows=rows)], "parts.train.0.rows: .*, where a whole number")
            for rows in (-1, 10**30, True, "3", 3.0)
        ),
        ([entry(bytes=-5)], "parts.train.0.bytes: -5"),
        ([entry(labels={"positive": -1})], "parts.train.0.labels.positive: -1"),
        ([entry(labels=["positive"])], "parts.train.0.labels: a list, where a map belongs"),
        ([entry(file=["x"])], "parts.train.0.file: a list"),
        *(
            ([entry(file=name)], "where train-00000-of-00001.tar belongs")
            for name in ("../x.tar", "/etc/x.tar", "http://x/y.tar", "sub/train-00000-of-00001.tar", "", "*.tar")
        ),
        ([entry(), entry()], "where train-00000-of-00002.tar belongs"),
        ([entry(file="train-00000-of-00002.tar")], "where train-00000-of-00001.tar belongs"),
    ],
)
def test_manifest_that_says_what_cannot_be_is_refused(tmp_path, entries, message):
    manifest = {"version": 1, "format": "webdataset", "complete": True, "parts": {"train": entries}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"{MANIFEST} .*{message}.*; copy it again"):
        find_shards(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *((source, "is no manifest of shards") for source in (b"[" * 100_000, b"", b"\xff", b"[" + b"1" * 5000 + b"]")),
        *((source, "where a map belongs") for source in (b"null", b"[]", b"7")),
        (b'{"version": 99}', "has no complete"),
        (b'{"version": 99, "format": "parquet", "complete": true, "parts": {}}', "version: 99, where 1 belongs"),
        (b'{"version": 1, "format": "zip", "complete": true, "parts": {}}', "one of parquet, webdataset belongs"),
        (
            b'{"version": 1, "format": "parquet", "complete": true, "parts": {"x": []}}',
            "one of train, validation, test",
        ),
    ],
)
def test_manifest_that_is_none_is_refused(tmp_path, source, message):
    (tmp_path / MANIFEST).write_bytes(source)
    with pytest.raises(InputError, match=f"{MANIFEST} .*{message}"):
        find_shards(str(tmp_path), "train")


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
    other, rows = replace(shards.shards[0], rows=announced), []
    with pytest.raises(ShardError, match=message):
        rows.extend(number for number, _ in iterate_shard(other, kind, stop=announced))
    assert announced > len(rows), "also noticed by who asks for no row behind the last"


def test_shard_of_another_size_than_announced_is_named(write_shards, numbered_rows):
    folder = write_shards(numbered_rows(30))
    path = sorted(folder.glob("train-*"))[1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match=rf"{path.name} can't be read .* bytes instead of"):
        read_all(folder)


def test_shard_that_the_manifest_does_not_list_is_named(write_shards, numbered_rows):
    folder = write_shards(numbered_rows(9))
    write_table(folder / "train-00002-of-00003.parquet", count=2)
    with pytest.raises(
        InputError, match=r"train-00002-of-00003\.parquet is not listed in .*name the shards with a glob"
    ):
        find_shards(str(folder), "train")
    assert find_shards(f"{folder}/train-*.parquet", "train").num_rows == 8 + 2


def test_manifest_of_200_gigabytes_is_refused(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b"{}")
    os.truncate(tmp_path / MANIFEST, 200 * 2**30)
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        find_shards(str(tmp_path), "train")


def test_links_to_shards_are_shards_and_broken_ones_are_named(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "seen").mkdir()
    write_table(tmp_path / "blobs" / "b", count=2)
    (tmp_path / "seen" / "0.parquet").symlink_to("../blobs/b")
    write_table(tmp_path / "seen" / "1.parquet", count=1)
    (tmp_path / "seen" / "._1.parquet").write_bytes(b"\0\5\x16\7")
    assert len(read_all(tmp_path / "seen")) == 3
    (tmp_path / "seen" / "2.parquet").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"2\.parquet"):
        find_shards(str(tmp_path / "seen"), "train")


def test_damaged_shard_of_an_archive_is_named_with_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.writestr("a.parquet", b"PAR1 no shard PAR1")
    with pytest.raises(InputError, match=r"The shard zip://a\.parquet::.*F\.zip can't be read"):
        find_shards(f"zip://*.parquet::{tmp_path}/F.zip", "train")
