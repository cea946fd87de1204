"""Rows to Arrow files by several processes: what fills a cache of `data_utils.cache`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features
from datasets.utils import tqdm

from data_utils.errors import InputError

# Below this many rows per process, starting the process takes longer than its work.
_ROWS_PER_WORKER = 32
# Rows per file at most, and files per process at least, so that all processes end at about the same time.
_ROWS_PER_FILE = 4096
_FILES_PER_WORKER = 8
# Rows per record batch: few, so that a process holds few decoded pictures at a time.
_ROWS_PER_BATCH = 64

Row = dict[str, Any]


def map_to_folder(
    rows: dict[str, list[Any]],
    function: Callable[..., Row],
    *,
    folder: Path,
    features: Features,
    options: dict[str, Any],
    num_workers: int,
    description: str,
) -> None:
    """Apply a plain function to rows with several processes and write the results as *.arrow files into a folder.

    `Dataset.map` would do the same, but costs as much as a tenth of decoding the pictures.

    Args:
        rows: input columns, which are not kept.
        function: one row (a dict) and the options to one row of `features`; must be importable, and use no torch.
        folder: where the files go, a build folder of `build_once`.
        features: columns of the result.
        options: keyword arguments of the function.
        num_workers: most processes used; few rows use fewer.
        description: of the progress bar.

    Raises:
        InputError: a process was killed, as happens when memory runs out.
        OSError: the folder can't be written to.
    """
    num_rows = len(next(iter(rows.values())))
    workers = max(1, min(num_workers, num_rows // _ROWS_PER_WORKER))
    size = min(_ROWS_PER_FILE, max(_ROWS_PER_WORKER, -(-num_rows // (workers * _FILES_PER_WORKER))))
    starts = range(0, num_rows, size)
    blocks = [{name: values[start : start + size] for name, values in rows.items()} for start in starts]
    paths = [folder / f"part-{start:012}.arrow" for start in starts]
    write = partial(_write_block, function=partial(function, **options), schema=features.arrow_schema)
    with tqdm(total=num_rows, desc=description, unit=" rows") as progress:
        try:
            with _start_processes(workers) as run:
                for count in run(write, paths, blocks):
                    progress.update(count)
        except BrokenProcessPool as error:
            raise InputError(
                f"a process was killed while {description.lower()}, most likely because memory ran out; "
                f"use fewer with --preprocessing_num_workers (now {workers})."
            ) from error


@contextlib.contextmanager
def _start_processes(workers: int) -> Iterator[Callable[..., Iterator[int]]]:
    """A `map` over that many processes, or the plain one."""
    if workers == 1:
        yield map
        return
    with _quiet_fork(), ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        yield pool.map


@contextlib.contextmanager
def _quiet_fork() -> Iterator[None]:
    """Tokenizers started before a fork complain in every child, and may deadlock there, unless this is off."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _end_with_parent() -> None:
    """A worker waits for work for ever; if the program is killed, it is to end as well."""

    def watch(parent: int) -> None:
        wait([parent])
        os._exit(1)

    threading.Thread(target=watch, args=(parent_process().sentinel,), daemon=True).start()


def _write_block(path: Path, block: dict[str, list[Any]], *, function: Callable[[Row], Row], schema: pa.Schema) -> int:
    """Write the results for one block of rows into one file; returns the number of rows."""
    rows = [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(rows), _ROWS_PER_BATCH):
            results = [function(row) for row in rows[start : start + _ROWS_PER_BATCH]]
            writer.write_batch(pa.RecordBatch.from_pylist(results, schema))
    return len(rows)
