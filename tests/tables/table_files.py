"""The same rows in every format that tables are read from."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
