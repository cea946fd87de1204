"""Predictions for shards: one line per row, in the shards' order, written as they come."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor

from data_utils.console.progress import progress
from data_utils.console.screen import show
from data_utils.prepare.collator import PairCollator
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import iterate_shard, open_shards
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import COLUMNS, Entry
from data_utils.stream.loader import ShardBatches, StreamLoader, take_entries
from data_utils.stream.rows import NumberedRow, RowPreparer
from data_utils.system.files import format_csv, put_in_place, temporary_path
from data_utils.system.refusals import RankError, describe_refusal
from evaluation.arguments import EvaluationArguments
from evaluation.predict.inference import NOT_FINITE, classify, inference_context
from evaluation.predict.loaded_run import LoadedRun
from evaluation.tasks.output_files import OutputFiles

logger = logging.getLogger(__name__)
GUIDS, ROWS = "guids", "rows"
Counts = Counter[Any]  # of ROWS, and of faults by (reason, action)


class OrderedBatches(ShardBatches):
    """The batches of shards in their order.

    A batch never reaches into the next shard, so that a row meets the same neighbours on any number of ranks.
    """

    def __init__(self, shards: ShardSet, batch_size: int, *, prepare: RowPreparer, collator: PairCollator) -> None:
        super().__init__(shards, prepare=prepare, collator=collator)
        self._batch_size = batch_size

    @property
    def num_batches(self) -> int | None:
        """See `ShardBatches`."""
        starts = self.shards.starts
        return None if starts is None else int((-(-np.diff(starts) // self._batch_size)).sum())

    def iterate(self, worker: int, num_workers: int) -> Iterator[dict[str, Any]]:
        """See `ShardBatches`."""
        number = 0
        for shard in self.shards.shards:
            rows = iterate_shard(shard, self.shards.kind, stop=shard.rows)
            for _, batch in groupby(rows, key=lambda row: row[0] // self._batch_size):
                if number % num_workers == worker:
                    numbered = [NumberedRow(row, shard.name, read()) for row, read in batch]
                    yield self.collate(numbered) | {GUIDS: [row.row.guid for row in numbered]}
                number += 1


class _PartFiles:
    """What each rank answers, in files beside those of the output, which are put together at last."""

    def __init__(self, files: OutputFiles, names: Sequence[str]) -> None:
        self._files, self._names = files, names
        self._headers: dict[Path, Sequence[str]] = {
            files.output: ("guid", "tag"),
            files.probabilities: ("guid", "prediction", *(f"prob_{name}" for name in names)),
            files.quarantine: COLUMNS,
        }

    def _parts(self, rank: int) -> list[Path]:
        return [target.with_name(f".{target.name}.{rank:05d}") for target in self._headers]

    @contextmanager
    def begin(self, rank: int) -> Iterator[None]:
        """Empty files of a rank, whatever a prediction that was killed has left; removed at the end."""
        try:
            for path in self._parts(rank):
                path.unlink(missing_ok=True)
                path.touch(exist_ok=False)
            yield
        finally:
            for path in self._parts(rank):
                path.unlink(missing_ok=True)

    def write(self, rank: int, guids: Sequence[str], probabilities: Tensor, entries: Iterable[Entry]) -> None:
        """Add a batch: N guids, probabilities (N, C), and what was wrong with its rows."""
        answers = [self._names[index] for index in probabilities.argmax(dim=1).tolist()]
        rows = list(zip(guids, answers, strict=True))
        scored = [
            (*row, *(f"{value:.6f}" for value in values))
            for row, values in zip(rows, probabilities.tolist(), strict=True)
        ]
        contents: list[Iterable[Sequence[Any]]] = [rows, scored, map(astuple, entries)]
        for path, lines in zip(self._parts(rank), contents, strict=True):
            with path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.writelines(format_csv(lines))

    def merge(self, world_size: int) -> None:
        """Put all parts together; the files appear whole or not at all, and an earlier prediction's are removed."""
        parts = dict(zip(self._headers, zip(*map(self._parts, range(world_size)), strict=True), strict=True))
        for path in (self._files.metrics, self._files.encodings):  # nobody looks at labels and encodings here
            path.unlink(missing_ok=True)
        if not any(part.stat().st_size for part in parts[self._files.quarantine]):
            self._files.quarantine.unlink(missing_ok=True)
            del parts[self._files.quarantine]
        with ExitStack() as stack:
            temporaries = {target: temporary_path(target) for target in parts}
            for target, temporary in temporaries.items():
                stack.callback(temporary.unlink, missing_ok=True)
                with temporary.open("xb") as whole:
                    whole.write(f"{','.join(self._headers[target])}\n".encode())
                    for part in parts[target]:
                        with part.open("rb") as file:
                            shutil.copyfileobj(file, whole)
            put_in_place(temporaries)


def predict_stream(
    run: LoadedRun, source: str, files: OutputFiles, arguments: EvaluationArguments, accelerator: Accelerator
) -> None:
    """Answer every row of the shards, whatever is wrong with it; every rank calls it, and takes neighbouring shards.

    Labels are not looked at: figures would need all rows at once. What a rank alone may meet, also in the middle, is a
    RankError or a ShardError.
    """
    remedy = "write them with python -m data_utils.shard --for_prediction, or name others with a glob"
    shards = open_shards(source, "test", labelled=False, remedy=remedy).with_text_encoding(run.data.text_encoding)
    rank = accelerator.process_index
    paths = [path for shard in shards.shards if (path := shard.local_path) is not None]
    files.prepare([*paths, *{path.with_name(MANIFEST) for path in paths}, *run.list_files()])
    parts = _PartFiles(files, run.label_names)
    start, stop = (number * len(shards.shards) // accelerator.num_processes for number in (rank, rank + 1))
    own, prepare = replace(shards, shards=shards.shards[start:stop]), run.row_preparer(for_prediction=True)
    batches = OrderedBatches(own, arguments.per_device_eval_batch_size, prepare=prepare, collator=run.collator)
    try:
        with parts.begin(rank):
            counts = _answer(run, batches, parts, accelerator, num_workers=arguments.dataloader_num_workers)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                parts.merge(accelerator.num_processes)
            total = sum(gather_object([counts]), Counts())  # which other ranks wait in, with their files
    except OSError as error:
        sentence = describe_refusal(error, path=files.output)
        raise RankError(
            sentence or f"Cannot write beside {files.output} ({error}); all ranks need one --output folder."
        ) from error
    if accelerator.is_main_process:
        num_rows = total.pop(ROWS, 0)
        for (reason, action), number in sorted(total.items()):
            logger.warning("%s: %d %s (rows of %s)", reason, number, action, files.quarantine)
        show(f"{num_rows} predictions are in {files.output}, probabilities and faulty rows beside it.")


def _answer(
    run: LoadedRun, batches: OrderedBatches, parts: _PartFiles, accelerator: Accelerator, *, num_workers: int
) -> Counts:
    """Write what this rank's shards give, and count it."""
    model, counts = run.load_model(), Counts()
    loader, is_main = StreamLoader(batches, num_workers=num_workers), accelerator.is_main_process
    with inference_context(model, accelerator):
        for batch in progress(
            loader, description="predict", unit="batches", total=batches.num_batches, is_shown=is_main, stays=False
        ):
            entries, guids = take_entries(batch), batch.pop(GUIDS)
            probabilities = classify(model, send_to_device(batch, accelerator.device))["probabilities"].cpu()
            if not probabilities.isfinite().all():
                raise RankError(f"The model's output is not finite; {NOT_FINITE}")
            parts.write(accelerator.process_index, guids, probabilities, entries)
            counts[ROWS] += len(guids)
            counts.update((entry.reason, entry.action) for entry in entries)
    return counts
