"""Shards as tests write and read them."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_utils.shards.read import check_columns, iterate_shard, read_texts
from data_utils.shards.shard_set import find_shards

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def picture():
    target = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 30, 60)).save(target, "JPEG")
    return target.getvalue()


def read_all(location, part="train"):
    shards = find_shards(str(location), part)
    check_columns(shards, labelled=part != "test")
    read_texts(shards, limit=100)
    return [read() for shard in shards.shards for _, read in iterate_shard(shard, shards.kind, stop=shard.rows)]


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_table(path, count=8, **columns):
    """Parquet of `count` rows; a column may be given, or None to leave it out."""
    path.parent.mkdir(exist_ok=True)
    values = {"image": [picture()] * count, "text": ["a good day"] * count, "label": ["positive"] * count} | columns
    table = pa.table({name: each for name, each in values.items() if each is not None})
    pq.write_table(table, path, store_schema=False, compression="none")


def write_tar(path, files):
    """Files as {name: content}, or TarInfo with everything that is asked for."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def tar_row(name, *, text=b"a good day", label=b"positive"):
    return {f"{name}.jpg": picture(), f"{name}.txt": text, f"{name}.cls": label}


def tar_rows(names, **content):
    return {file: source for name in names for file, source in tar_row(name, **content).items()}
