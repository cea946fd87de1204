"""Rows to Arrow files by `Dataset.map`: what fills a cache of `data_utils.prepare.cache`."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, disable_progress_bars
from datasets.utils.py_utils import multiprocess

from data_utils.console.progress import progress
from data_utils.system.memory import keep_freed_memory
from data_utils.system.processes import end_with_parent, limit_workers
from modeling.errors import InputError

# Rows of each process between two words on how far the work is.
_ROWS_PER_PROCESS = 2048
# Characters of the folder in which `Dataset.map` has a socket: an address has 108, of which the socket's name takes 32.
_LONGEST_FOLDER, _SHORT_FOLDER = 70, "/tmp"
_TOKENIZERS = "TOKENIZERS_PARALLELISM"

Columns = dict[str, list[Any]]


def map_to_folder(
    rows: Dataset,
    function: Callable[..., Columns],
    *,
    folder: Path,
    features: Features,
    options: dict[str, Any],
    description: str,
    num_workers: int = 1,
    rows_per_worker: int = 1,
    batch_size: int,
) -> None:
    """Apply a function to batches of rows, and write what it gives as *.arrow files; their sorted names give the order.

    Args:
        rows: input columns, which are not kept.
        function: columns of a batch and the options to as many rows of `features`; with several processes it must be
            importable, and use no torch.
        folder: where the files go, a build folder of `build_once`.
        features: columns of the result.
        options: keyword arguments of the function.
        description: of the progress bar.
        num_workers: most processes.
        rows_per_worker: below this many rows for each, starting a process takes longer than its work.
        batch_size: rows that a process holds at once.

    Raises:
        InputError: a process was killed, as happens when memory runs out.
        OSError: the folder can't be written to, or no process can be started.
    """
    possible = limit_workers(min(num_workers, len(rows) // rows_per_worker))
    step = num_workers * _ROWS_PER_PROCESS
    disable_progress_bars()  # those of `datasets`, which don't know of files and pipes
    with progress(total=len(rows), description=description, unit="rows") as shown, _own_processes():
        for start in range(0, len(rows), step):
            part = rows.select(range(start, min(start + step, len(rows))))
            num_proc = min(possible, len(part) // rows_per_worker)
            try:
                part.map(
                    function,
                    batched=True,
                    batch_size=batch_size,
                    writer_batch_size=batch_size,
                    remove_columns=rows.column_names,
                    features=features,
                    fn_kwargs=options,
                    num_proc=num_proc if num_proc > 1 else None,
                    cache_file_name=str(folder / f"part-{start:012}.arrow"),
                    new_fingerprint=f"part-{start:012}",
                    load_from_cache_file=False,
                )
            except RuntimeError as error:
                if "abruptly died" not in str(error):
                    raise
                raise InputError(
                    f"a process was killed while {description.lower()}, most likely because memory ran out; "
                    f"use fewer with --preprocessing_num_workers (now {num_workers})."
                ) from error
            except multiprocess.ProcessError as error:  # of processes that no longer answer, as the user ended the work
                raise error.__context__ or error from None
            shown.update(len(part))


# Of the processes that are started now: whether `Dataset.map` does it, and whether the main thread does.
_are_ours, _is_main = False, True


@contextlib.contextmanager
def _own_processes() -> Iterator[None]:
    """Prepare the processes that `Dataset.map` starts, and take back what it leaves in the environment.

    It sets a copy in the place of `os.environ`; programs in other languages would go on with its value for tokenizers.
    """
    global _are_ours
    environment, before, folder = os.environ, os.environ.get(_TOKENIZERS), tempfile.tempdir
    _are_ours = True
    if len(tempfile.gettempdir()) > _LONGEST_FOLDER and os.access(_SHORT_FOLDER, os.W_OK):
        tempfile.tempdir = _SHORT_FOLDER
    try:
        yield
    except BaseException:
        for process in multiprocess.active_children():  # one that was just being started, for which Python would wait
            process.terminate()
        raise
    finally:
        _are_ours = False
        tempfile.tempdir = folder
        os.environ = environment  # noqa: B003  # the object that was there before
        environment.pop(_TOKENIZERS, None)
        if before is not None:
            environment[_TOKENIZERS] = before


def _look_at_thread() -> None:
    global _is_main
    _is_main = threading.current_thread() is threading.main_thread()


def _start_process() -> None:
    """Keep the memory of one picture for the next one, and end when the program ends, however it does."""
    if _are_ours:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program itself ends them
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if _is_main:  # else it is in the place of a killed one, and would end with a thread, while it holds a lock
            end_with_parent()
        keep_freed_memory()
        gc.freeze()  # or each collection walks over all that the program had loaded before it started this process


os.register_at_fork(before=_look_at_thread, after_in_child=_start_process)
