"""Rows to Arrow files by several processes: what fills a cache of `data_utils.prepare.cache`."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import accumulate
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from datasets import Features

from data_utils.console.progress import progress
from data_utils.system.memory import keep_freed_memory
from data_utils.system.processes import limit_workers
from modeling.errors import InputError

# Rows per file: at most, and at least. A file takes this share of the rows a process has left; see `_plan_files`.
_ROWS_PER_FILE, _FEWEST_ROWS_PER_FILE = 4096, 16
_SHARE = 2
# Rows per record batch: few, so that a process holds few decoded pictures at a time, and they stay in the CPU's caches.
_ROWS_PER_BATCH = 32
_BYTES_PER_WRITE = 256 << 10

Row = dict[str, Any]


class Workers:
    """Processes that work for `map_to_folder`: started when it first pays, kept for the next rows, ended on leaving.

    Args:
        limit: most processes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pool: ProcessPoolExecutor | None = None
        self._possible: int | None = None  # found out when it is first needed
        self._environment = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._environment:
            if self._pool is not None:
                # Without work they end by themselves, while the caller goes on; after an error none outlives the call.
                self._pool.shutdown(wait=kind is not None)

    def choose_map(self, num_workers: int) -> Callable[..., Iterator[int]]:
        """The `map` of the processes there are, or of so many new ones; the plain one where one process is enough."""
        if self._pool is None and num_workers > 1:
            if self._possible is None:
                self._possible = limit_workers(num_workers)
            num_workers = min(num_workers, self._possible)
        if self._pool is None and num_workers > 1:
            self._environment.enter_context(_quiet_fork())
            self._pool = ProcessPoolExecutor(num_workers, initializer=_start_worker)
        return map if self._pool is None else self._pool.map


def map_to_folder(
    rows: dict[str, list[Any]],
    function: Callable[..., Row],
    *,
    folder: Path,
    features: Features,
    options: dict[str, Any],
    workers: Workers,
    rows_per_worker: int,
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
        workers: the processes; few rows start fewer.
        rows_per_worker: below this many rows for each, starting a process takes longer than its work.
        description: of the progress bar.

    Raises:
        InputError: a process was killed, as happens when memory runs out.
        OSError: the folder can't be written to.
    """
    num_rows = len(next(iter(rows.values())))
    # The same files whatever the rows cost: data sets of the same rows that are joined are cut where either one is cut,
    # and `datasets` takes time for each piece.
    spans = _plan_files(num_rows, max(1, min(workers.limit, num_rows // _FEWEST_ROWS_PER_FILE)))
    blocks = [{name: values[start:end] for name, values in rows.items()} for start, end in spans]
    paths = [folder / f"part-{start:012}.arrow" for start, _ in spans]
    write = partial(_write_block, function=partial(function, **options), schema=features.arrow_schema)
    run = workers.choose_map(min(workers.limit, num_rows // rows_per_worker))
    with progress(total=num_rows, description=description, unit="rows") as shown:
        try:
            for count in run(write, paths, blocks):
                shown.update(count)
        except BrokenProcessPool as error:
            raise InputError(
                f"a process was killed while {description.lower()}, most likely because memory ran out; "
                f"use fewer with --preprocessing_num_workers (now {workers.limit})."
            ) from error


def _plan_files(num_rows: int, workers: int) -> list[tuple[int, int]]:
    """First row and end of each file: ever fewer rows, so that few files are made and yet all processes end together.

    This is guided self-scheduling (Polychronopoulos and Kuck 1987).
    """
    spans, start = [], 0
    while start < num_rows:
        size = (num_rows - start) // (workers * _SHARE)
        end = min(num_rows, start + min(_ROWS_PER_FILE, max(_FEWEST_ROWS_PER_FILE, size)))
        spans.append((start, end))
        start = end
    return spans


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


def _start_worker() -> None:
    """Keep the memory of one picture for the next one, and end with the program if that is killed."""
    keep_freed_memory()
    gc.freeze()  # or each collection walks over all that the program had loaded before it started this process
    end_with_parent()


def end_with_parent() -> None:
    """Let this process of a pool end with its program, even if that is killed: else it would wait for ever."""

    def watch(parent: int) -> None:
        wait([parent])
        os._exit(1)

    threading.Thread(target=watch, args=(parent_process().sentinel,), daemon=True).start()


def _write_block(path: Path, block: dict[str, list[Any]], *, function: Callable[[Row], Row], schema: pa.Schema) -> int:
    """Write the results for one block of rows into one file; returns the number of rows."""
    rows = [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]
    with _PiecewiseFile(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(rows), _ROWS_PER_BATCH):
            results = [function(row) for row in rows[start : start + _ROWS_PER_BATCH]]
            columns = [_to_array([result[field.name] for result in results], field.type) for field in schema]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(rows)


class _PiecewiseFile(io.FileIO):
    """A file that is written in small pieces, however much is handed over at once.

    Linux caches what one call writes in blocks as large as that, and finding 2 MiB in one place took ten times as long
    as copying into it: as much as a fifth of the decoding.
    """

    def write(self, data: pa.Buffer | bytes) -> int:
        """Write all of the data; returns the number of bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest[:_BYTES_PER_WRITE]) :]
        return size


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """One column; bytes are copied once, while Arrow's own conversion copies them again whenever its buffer grows."""
    if not pa.types.is_binary(kind):
        return pa.array(values, kind)
    present = pa.array([value is not None for value in values]).buffers()[1]
    parts = [value or b"" for value in values]
    ends = np.array([0, *accumulate(map(len, parts))], dtype=np.int32)  # numpy refuses an end beyond 2 GiB
    return pa.Array.from_buffers(kind, len(parts), [present, pa.py_buffer(ends), pa.py_buffer(b"".join(parts))])
