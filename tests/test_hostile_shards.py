"""Shards with any bit turned, tars of any origin, manifests that say what can't be: one sentence names the shard."""

import io
import json
import os
import random
import struct
import subprocess
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_utils.errors import InputError
from data_utils.shard_file import ShardError
from data_utils.shard_manifest import MANIFEST, parse_manifest
from data_utils.shard_read import check_columns, iterate_shard, read_texts
from data_utils.shard_set import find_shards
from data_utils.stream_rows import read_label


def picture():
    target = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 30, 60)).save(target, "JPEG")
    return target.getvalue()


def read_all(location):
    shards = find_shards(str(location), "train")
    check_columns(shards, labelled=True)
    read_texts(shards, limit=100)
    return [read() for shard in shards.shards for _, read in iterate_shard(shard, shards.kind, stop=shard.rows)]


def write_parquet(path, count=2):
    kind = pa.struct({"bytes": "binary", "path": "string"})
    pictures = pa.array([{"bytes": picture(), "path": "x.jpg"}] * count, kind)
    columns = {"image": pictures, "text": ["a good day"] * count, "label": ["positive"] * count}
    pq.write_table(pa.table(columns), path, store_schema=False, compression="none")


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
    write_parquet(path)
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


def test_parquet_whose_counts_of_rows_contradict_each_other_is_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", count=3)
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


def row_files(*numbers):
    rows = {}
    for number in numbers:
        rows |= {f"{number}.jpg": picture(), f"{number}.txt": b"a good day", f"{number}.cls": b"positive"}
    return rows


def write_tar(path, files):
    """Files as {name: content}, or TarInfo with everything that is asked for."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


LITTER = {
    "._0.jpg": b"\0\5\x16\7",
    "sub/._1.txt": b"\0\5\x16\7",
    ".DS_Store": b"\0\0\0\1Bud1",
    "__MACOSX/._0.jpg": b"x",
    "__MACOSX/5.jpg": b"x",
    "PaxHeader/0.jpg": b"30 mtime=1\n",
    "sub/PaxHeaders.123/0.txt": b"30 mtime=1\n",
    "README.md": b"# Data",
    "README.txt": b"Data",
    "LICENSE": b"MIT",
    "LICENSE.txt": b"MIT",
    "Thumbs.db": b"x",
    "desktop.ini": b"x",
    "dataset_info.json": b'{"features": {}}',
    "classes.txt": b"positive",
    "checksums.md5": b"x",
    ".git/config": b"x",
    "@eaDir/0.jpg": b"x",
    "notes": b"x",
}


@pytest.mark.parametrize("place", ["before", "between", "behind", "all over"])
def test_what_lies_beside_the_rows_of_a_tar_is_no_row(tmp_path, place):
    first, second = row_files(0), row_files(1)
    litter = list(LITTER.items())
    order = {
        "before": {**LITTER, **first, **second},
        "between": {**first, **LITTER, **second},
        "behind": {**first, **second, **LITTER},
        "all over": dict(sorted({**first, **LITTER, **second}.items())),
    }[place]
    assert len(litter) + 6 == len(order)
    write_tar(tmp_path / "a.tar", order)
    assert [(row.guid, row.text, row.image) for row in read_all(tmp_path)] == [
        (guid, "a good day", picture()) for guid in ("0", "1")
    ]


def test_rows_that_lack_files_are_rows(tmp_path):
    files = {"0.heic": b"x", "1.txt": b"words", "2.json": b'{"label": 1}', "3.cls": b"1", "4.json": b"[" * 100_000}
    write_tar(tmp_path / "a.tar", {**row_files(9), **files, "a/0.jpg": picture(), "b/0.jpg": picture()})
    assert [row.guid for row in read_all(tmp_path)] == ["9", "0", "1", "2", "3", "4", "a/0", "b/0"]


@pytest.mark.parametrize(
    "links",
    [
        pytest.param(
            [special("1.jpg", tarfile.LNKTYPE, "0.jpg"), special("1.txt", tarfile.LNKTYPE, "0.txt")], id="hard"
        ),
        pytest.param(
            [special("1.jpg", tarfile.SYMTYPE, "0.jpg"), special("1.txt", tarfile.SYMTYPE, "./0.txt")], id="soft"
        ),
        pytest.param(
            [special("d/1.jpg", tarfile.SYMTYPE, "../0.jpg"), special("d/1.txt", tarfile.LNKTYPE, "./0.txt")], id="up"
        ),
        pytest.param(
            [special("1.jpg", tarfile.SYMTYPE, "2.jpg"), special("1.txt", tarfile.SYMTYPE, "2.txt")], id="later"
        ),
    ],
)
def test_link_has_the_content_of_the_file_that_it_names(tmp_path, links):
    write_tar(tmp_path / "a.tar", {**row_files(0), **dict.fromkeys(links, b""), **row_files(2)})
    rows = read_all(tmp_path)
    assert [(row.text, row.image) for row in rows] == [("a good day", picture())] * 3


def test_tar_of_hard_links_by_gnu_tar_gives_every_row(tmp_path):
    for name, content in row_files(*range(3)).items():
        (tmp_path / name).write_bytes(content)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").unlink()
        os.link(tmp_path / "0.jpg", tmp_path / f"{number}.jpg")
    subprocess.run(["tar", "--sort=name", "-cf", "a.tar", "--exclude=a.tar", "."], cwd=tmp_path, check=True)
    assert [(row.guid, row.image) for row in read_all(tmp_path)] == [(guid, picture()) for guid in "012"]


def huge(name, size):
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


ZEROS = b"\0" * 1024


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**row_files(0), special("1.jpg", tarfile.LNKTYPE, "gone.jpg"): b""}, r"1\.jpg is no file, but a link"),
        ({**row_files(0), special("1.jpg", tarfile.SYMTYPE, "/etc/passwd"): b""}, r"1\.jpg is no file, but a link"),
        ({**row_files(0), special("1.jpg", tarfile.SYMTYPE, "1.jpg"): b""}, r"1\.jpg is no file, but a link"),
        ({**row_files(0), special("1.jpg", tarfile.FIFOTYPE): b""}, r"1\.jpg is no file, but a link or a device"),
        ({"0.jpg": b"x", "1.jpg": b"x", "0.txt": b"x", "1.txt": b"x"}, r"0\.txt stands apart .*tar --sort=name"),
        ({**row_files(0, 1), tarfile.TarInfo("0.jpg"): b"x"}, r"0\.jpg stands apart .*tar --sort=name"),
        ({"0.jpg": b"x", tarfile.TarInfo("0.jpg"): b"x"}, r"0\.jpg stands in it twice"),
    ],
)
def test_tar_whose_rows_would_be_lost_or_doubled_is_refused_naming_one_file(tmp_path, files, message):
    write_tar(tmp_path / "a.tar", {"9.txt": b"x", "9.jpg": b"x", "9.cls": b"1", **files})
    with pytest.raises((ShardError, InputError), match=rf"a\.tar can't be read \(ReadError: {message}"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: os.truncate(path, 200 * 2**30), "bytes follow the archive's end"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "bytes follow the archive's end"),
        (lambda path: path.write_bytes(huge("1.jpg", 200 * 2**30)), "unexpected end of data|neither a file"),
        (
            lambda path: (path.write_bytes(huge("1.json", 2**38)), os.truncate(path, 2**38 + 10_240)),
            "at most 268435456 are read",
        ),
        (lambda path: path.write_bytes(huge("1.jpg", -512) + ZEROS), "has -512 bytes"),
        (lambda path: path.write_bytes(special_header(tarfile.GNUTYPE_LONGNAME, 2**38)), "a header speaks of"),
        (lambda path: path.write_bytes(special_header(tarfile.XHDTYPE, -512)), "a header speaks of"),
    ],
)
def test_tar_with_absurd_sizes_takes_neither_time_nor_memory(tmp_path, spoil, message):
    path = tmp_path / "a.tar"
    write_tar(path, row_files(0))
    spoil(path)
    with pytest.raises((ShardError, InputError), match=rf"a\.tar can't be read .*({message})"):
        read_all(tmp_path)


def special_header(kind, size):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + ZEROS


def entry(**changes):
    return {"file": "train-00000-of-00001.tar", "rows": 3, "bytes": 9999, "labels": {"positive": 3}} | changes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(rows=2)], "says 2 rows, 3 labels"),
        ([entry(rows=-1, labels={})], "says -1 rows"),
        ([entry(rows=10**30)], "which can't be"),
        ([entry(rows=10**30, bytes=10**31)], "which can't be"),
        ([entry(bytes=-5)], "and -5 bytes"),
        ([entry(labels={"positive": -1})], "which can't be"),
        ([entry(rows=True)], "'rows' is missing, or no int"),
        ([entry(rows="3")], "'rows' is missing, or no int"),
        ([entry(rows=3.0)], "'rows' is missing, or no int"),
        ([entry(labels=["positive"])], "'labels' is missing, or no dict"),
        ([entry(file=["x"])], "'file' is missing, or no str"),
        *(
            ([entry(file=name)], "where train-00000-of-00001.tar belongs")
            for name in ("../x.tar", "/etc/x.tar", "http://x/y.tar", "sub/train-00000-of-00001.tar", "", "*.tar")
        ),
        ([entry(), entry()], "where train-00000-of-00002.tar belongs"),
        ([entry(file="train-00000-of-00002.tar")], "where train-00000-of-00001.tar belongs"),
    ],
)
def test_manifest_that_says_what_cannot_be_is_refused(entries, message):
    manifest = {"version": 1, "format": "webdataset", "complete": True, "parts": {"train": entries}}
    with pytest.raises(InputError, match=f"{MANIFEST} is damaged: .*{message}"):
        parse_manifest(json.dumps(manifest).encode(), MANIFEST)


@pytest.mark.parametrize(
    "source",
    [b"[" * 100_000, b"", b"null", b"[]", b'{"version": ' + b"1" * 5000 + b"}", b"\xff", b'{"version": {}}', b"7"],
)
def test_manifest_that_is_none_is_refused(source):
    with pytest.raises(InputError, match=f"{MANIFEST} is (no manifest of shards|of version)"):
        parse_manifest(source, MANIFEST)


def test_manifest_of_200_gigabytes_is_refused(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b"{}")
    os.truncate(tmp_path / MANIFEST, 200 * 2**30)
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        find_shards(str(tmp_path), "train")


def test_links_to_shards_are_shards_and_broken_ones_are_named(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "seen").mkdir()
    write_parquet(tmp_path / "blobs" / "b", count=2)
    (tmp_path / "seen" / "0.parquet").symlink_to("../blobs/b")
    write_parquet(tmp_path / "seen" / "1.parquet", count=1)
    (tmp_path / "seen" / "._1.parquet").write_bytes(b"\0\5\x16\7")
    assert len(read_all(tmp_path / "seen")) == 3
    (tmp_path / "seen" / "2.parquet").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"2\.parquet"):
        find_shards(str(tmp_path / "seen"), "train")


@pytest.mark.parametrize("digits", [5000, 11])
def test_label_of_many_digits_is_one_that_nobody_knows(digits):
    assert read_label("1" * digits, ["a", "b"])[1][0] == "unknown_label"


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
    (tmp_path / "a::b").mkdir()
    for path in (tmp_path / "a.parquet", tmp_path / "a::b" / "a.parquet"):
        write_parquet(path)
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "a.parquet")
    location = url.format(folder=tmp_path)
    assert len(read_all(location)) == 2
    assert find_shards(location, "train").num_rows == 2


def test_damaged_shard_of_an_archive_is_named_with_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.writestr("a.parquet", b"PAR1 no shard PAR1")
    with pytest.raises(InputError, match=r"The shard zip://a\.parquet::.*F\.zip can't be read"):
        find_shards(f"zip://*.parquet::{tmp_path}/F.zip", "train")
