"""Tars that other programs made, or that are cut and spoilt: each row once, or one sentence that names a file."""

import os
import subprocess
import tarfile

import pytest
from shard_reading import picture, read_all, tar_row, tar_rows, write_tar

from data_utils.shards.shard_file import ShardError
from modeling.errors import InputError


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
    first, second = tar_row("0"), tar_row("1")
    order = {
        "before": {**LITTER, **first, **second},
        "between": {**first, **LITTER, **second},
        "behind": {**first, **second, **LITTER},
        "all over": dict(sorted({**first, **LITTER, **second}.items())),
    }[place]
    assert len(LITTER) + 6 == len(order)
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
    write_tar(tmp_path / "a.tar", {**tar_row("9"), **files, "a/0.jpg": picture(), "b/0.jpg": picture()})
    assert [row.guid for row in read_all(tmp_path)] == ["9", "0", "1", "2", "3", "4", "5", "a/0", "b/0"]


@pytest.mark.parametrize(
    ("kind", "name", "jpg", "txt"),
    [
        (tarfile.LNKTYPE, "1", "0.jpg", "0.txt"),
        (tarfile.SYMTYPE, "1", "0.jpg", "./0.txt"),
        (tarfile.SYMTYPE, "d/1", "../0.jpg", "../0.txt"),
        (tarfile.SYMTYPE, "1", "2.jpg", "2.txt"),
    ],
    ids=["hard", "soft", "up", "later"],
)
def test_link_has_the_content_of_the_file_that_it_names(tmp_path, kind, name, jpg, txt):
    links = [special(f"{name}.jpg", kind, jpg), special(f"{name}.txt", kind, txt)]
    write_tar(tmp_path / "a.tar", {**tar_row("0"), **dict.fromkeys(links, b""), **tar_row("2")})
    rows = read_all(tmp_path)
    assert [(row.text, row.image) for row in rows] == [("a good day", picture())] * 3


def test_tar_of_hard_links_by_gnu_tar_gives_every_row(tmp_path):
    for name, content in tar_rows("012").items():
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


def last_header(path):
    with tarfile.open(path) as archive:
        return archive.getmembers()[-1].offset


def overwrite(path, place, content):
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


ZEROS = b"\0" * 1024


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**tar_row("0"), special("1.jpg", tarfile.LNKTYPE, "gone.jpg"): b""}, r"1\.jpg is no file, but a link"),
        ({**tar_row("0"), special("1.jpg", tarfile.SYMTYPE, "/etc/passwd"): b""}, r"1\.jpg is no file, but a link"),
        ({**tar_row("0"), special("1.jpg", tarfile.SYMTYPE, "1.jpg"): b""}, r"1\.jpg is no file, but a link"),
        ({**tar_row("0"), special("1.jpg", tarfile.FIFOTYPE): b""}, r"1\.jpg is no file, but a link or a device"),
        ({"0.jpg": b"x", "1.jpg": b"x", "0.txt": b"x", "1.txt": b"x"}, r"0\.txt stands apart .*tar --sort=name"),
        ({**tar_rows("01"), tarfile.TarInfo("0.jpg"): b"x"}, r"0\.jpg stands apart .*tar --sort=name"),
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
        (lambda path: os.truncate(path, last_header(path) + 100), "neither a file nor|truncated header|unexpected end"),
        (lambda path: os.truncate(path, last_header(path)), "neither a file nor the archive's end"),
        (lambda path: overwrite(path, last_header(path), b"\x01" * 512), "neither a file nor the archive's end"),
    ],
)
def test_tar_that_is_cut_or_has_absurd_sizes_takes_neither_time_nor_memory(tmp_path, spoil, message):
    path = tmp_path / "a.tar"
    write_tar(path, tar_row("0"))
    spoil(path)
    with pytest.raises((ShardError, InputError), match=rf"a\.tar can't be read .*({message})"):
        read_all(tmp_path)


def special_header(kind, size):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + ZEROS
