"""Rows to Arrow files, by several processes: what fills a cache of `data_utils.prepare.cache`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Features

from data_utils.console.progress import progress
from data_utils.system.processes import limit_workers, run_tasks

Columns = dict[str, list[Any]]
_ROWS_PER_FILE = 2048
_FILES_PER_WORKER = 4  # at least, so that none waits long for the last one


class _Part(NamedTuple):
    """The rows of one file; see `map_to_folder`."""

    path: Path
    rows: Sequence[Any]
    function: Callable[[Sequence[Any]], Columns]
    schema: pa.Schema
    batch_size: int


def map_to_folder(
    rows: Sequence[Any],
    function: Callable[[Sequence[Any]], Columns],
    *,
    folder: Path,
    features: Features,
    description: str,
    num_workers: int = 1,
    rows_per_worker: int = 1,
    batch_size: int,
) -> None:
    """Apply a function to batches of rows, and write what it gives as *.arrow files; their sorted names give the order.

    Args:
        rows: of any kind that can be sent to another process.
        function: some rows to as many of `features`; with several processes it must be importable, and use no torch.
        folder: a build folder of `build_once`.
        rows_per_worker: below this many rows for each, starting a process takes longer than its work.
        batch_size: rows that a process holds at once.

    Raises:
        InputError: a process was killed, as happens when memory runs out.
        OSError: the folder can't be written to, or no process can be started.
    """
    workers = limit_workers(min(num_workers, len(rows) // rows_per_worker))
    size = _ROWS_PER_FILE
    if workers > 1:
        size = min(size, max(rows_per_worker, -(-len(rows) // (_FILES_PER_WORKER * workers))))
    schema = features.arrow_schema
    parts = [
        _Part(folder / f"part-{start:012}.arrow", rows[start : start + size], function, schema, batch_size)
        for start in range(0, len(rows), size)
    ]
    done = run_tasks(_write_part, parts, workers=workers, doing=description.lower())
    for _ in progress(chain.from_iterable(done), total=len(rows), description=description, unit="rows"):
        pass


def _write_part(part: _Part) -> range:
    """Write a file; returns as many numbers as it has rows."""
    with pa.ipc.new_stream(str(part.path), part.schema) as writer:
        for start in range(0, len(part.rows), part.batch_size):
            columns = part.function(part.rows[start : start + part.batch_size])
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=part.schema))
    return range(len(part.rows))
