"""The same rows in every format that tables are read from, and tables of pictures."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from PIL import Image

from data_utils.prepare.loading import load_picture_row
from data_utils.prepare.pair_files import Picture
from data_utils.sources.arguments import DataArguments
from data_utils.tables.pictures import TableCells, locate_pictures
from data_utils.tables.table import Table
from modeling.pictures import PictureSettings

ROWS = [
    {
        "id": f"00{number}",
        "text": f'caf\u00e9 {number}, "so"\nnext',
        "image": f"p/{number}.jpg",
        "label": "ab"[number % 2],
    }
    for number in range(6)
]


def write_rows(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    """Write rows in the format that the name says; stream.arrow is of Arrow's stream format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    content = encode_rows(name, rows)
    path.write_bytes(content if name == path.name else gzip.compress(content))


def encode_rows(name: str, rows: list[dict[str, Any]]) -> bytes:
    """See `write_rows`."""
    suffix = Path(name).suffix
    if suffix in (".csv", ".tsv"):
        target = io.StringIO()
        writer = csv.DictWriter(target, rows[0], delimiter="," if suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return target.getvalue().encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix in (".jsonl", ".ndjson"):
        return "\n".join(map(json.dumps, rows)).encode()
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    if suffix == ".parquet":
        pq.write_table(table, sink)
    else:
        start = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
        with start(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def encode_picture(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = encode_picture(Image.new("RGB", (48, 36), (10, 90, 200)))
NOISE = encode_picture(Image.effect_noise((90, 90), 60))
TEXT = base64.b64encode(PICTURE).decode()


def write_pictures(folder: Path, values: Any, kind: pa.DataType | None = None, name: str = "rows") -> Table:
    """A memory-mapped table with the column `image`, in several pieces."""
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file:
        table = pa.table({"image": pa.array(values, kind)})
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return Table(f"{name}.csv", Dataset.from_file(str(folder / f"{name}.arrow")), str(folder))


def locate(table: Table, **options: Any) -> list[Picture | list[Picture]]:
    """See `locate_pictures`; the cache lies in the folder of the table."""
    data = DataArguments(data=[table.name], cache_dir=str(Path(table.folder, "cache")), **options)
    return locate_pictures(table, "image", data)


def load_pictures(settings: PictureSettings, table: Table, **options: Any) -> list[Any]:
    """The pixels of every row's picture, or the reason and the detail."""
    cells = pickle.loads(pickle.dumps(TableCells({table.dataset._fingerprint: table.dataset}, "image")))
    found = [load_picture_row("1", file, settings, 10**6, cells) for file in locate(table, **options)]
    return [row["image"] or (row["image_reason"], row["image_detail"]) for row in found]
