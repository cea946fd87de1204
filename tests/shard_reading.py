"""Shards as tests write and read them."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_utils.shards.read import check_columns, iterate_shard, read_texts
from data_utils.shards.shard_set import find_shards


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
