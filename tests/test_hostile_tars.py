"""Tars that other programs made, or that are cut and spoilt: each row once, or one sentence that names a file."""

import io
import os
import subprocess
import tarfile

import pytest
from shard_reading import picture, read_all

from data_utils.shards.shard_file import ShardError
from modeling.errors import InputError


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
    ".Trashes/501/0.jpg": b"x",
    "..": b"x",
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
    files = {
        "0.heic": b"x",
        "1.txt": b"words",
        "2.json": b'{"label": 1}',
        "3.cls": b"1",
        "4.json": b"[" * 100_000,
        "5.large.jpg": b"x",
    }
    write_tar(tmp_path / "a.tar", {**row_files(9), **files, "a/0.jpg": picture(), "b/0.jpg": picture()})
    assert [row.guid for row in read_all(tmp_path)] == ["9", "0", "1", "2", "3", "4", "5", "a/0", "b/0"]


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


def test_tar_without_rows_names_some_of_what_it_holds(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{number}.caption{number:03d}": b"x" for number in range(100)})
    with pytest.raises(InputError, match=r"holds \.caption000, .*, \.caption019 and 80 more; needed are"):
        read_all(tmp_path)


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
