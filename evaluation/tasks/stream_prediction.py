"""Predictions for shards: one line per row, in the shards' order, written as they come."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from data_utils.console.progress import progress
from data_utils.console.screen import show
from data_utils.prepare.collator import PairCollator
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import check_columns, iterate_shard
from data_utils.shards.shard_file import Shard, ShardError, ShardRow
from data_utils.shards.shard_set import ShardSet, find_shards
from data_utils.sources.quarantine import COLUMNS, Entry
from data_utils.stream.loader import ENTRIES, ERROR, StreamLoader
from data_utils.stream.rows import NumberedRow, RowPreparer
from data_utils.system.files import format_csv, put_in_place, temporary_path
from data_utils.system.refusals import RankError, describe_refusal
from evaluation.arguments import EvaluationArguments
from evaluation.predict.inference import classify, inference_context
from evaluation.predict.loaded_run import LoadedRun
from evaluation.tasks.output_files import OutputFiles
from modeling.errors import InputError

logger = logging.getLogger(__name__)
SHARD, GUIDS = "shard", "guids"


class ShardBatches(IterableDataset):
    """The batches of every `world_size`-th shard, in order; a loader's workers make them by turn.

    A batch never reaches into the next shard, so that a row meets the same neighbours on any number of ranks.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        prepare: RowPreparer,
        collator: PairCollator,
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        super().__init__()
        self.own = list(enumerate(shards.shards))[rank::world_size]
        self._kind = shards.kind
        self._prepare, self._collator, self._batch_size = prepare, collator, batch_size

    @property
    def num_batches(self) -> int | None:
        """Batches of this rank; None where nobody counted the rows."""
        rows = [shard.rows for _, shard in self.own]
        return None if None in rows else sum(-(-count // self._batch_size) for count in rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        before = 0  # batches of earlier shards
        try:
            for number, shard in self.own:
                last = -1
                for batch, rows in groupby(self._number_batches(shard), key=itemgetter(0)):
                    last = batch
                    if (before + batch) % num_workers == worker:
                        yield self._collate(number, [NumberedRow(row, shard.name, read()) for _, row, read in rows])
                before += last + 1
        except ShardError as error:
            yield {ERROR: str(error)}

    def _number_batches(self, shard: Shard) -> Iterator[tuple[int, int, Callable[[], ShardRow]]]:
        """Each row of a shard after the number of its batch; nothing is read yet."""
        for row, read in iterate_shard(shard, self._kind, stop=shard.rows):
            yield row // self._batch_size, row, read

    def _collate(self, shard: int, rows: list[NumberedRow]) -> dict[str, Any]:
        prepared, entries = self._prepare(rows)
        guids = [row["guid"] for row in prepared]
        return self._collator(prepared) | {SHARD: shard, GUIDS: guids, ENTRIES: entries}


class _PartFiles:
    """What one shard gives, in files beside the output that are put together at last."""

    KINDS = ("predictions", "probabilities", "quarantine")

    def __init__(self, files: OutputFiles) -> None:
        self._files = files

    def path(self, kind: str, shard: int) -> Path:
        output = self._files.output
        return output.with_name(f".{output.name}.{kind}-{shard:05d}")

    def write(
        self, shard: int, guids: Sequence[str], probabilities: Tensor, entries: Sequence[Entry], names: Sequence[str]
    ) -> None:
        answers = [names[index] for index in probabilities.argmax(dim=1).tolist()]
        rows = list(zip(guids, answers, strict=True))
        values = [[f"{value:.6f}" for value in row] for row in probabilities.tolist()]
        lines = {
            "predictions": rows,
            "probabilities": [[*row, *value] for row, value in zip(rows, values, strict=True)],
            "quarantine": map(astuple, entries),
        }
        for kind, content in lines.items():
            with self.path(kind, shard).open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.writelines(format_csv(content))

    def merge(self, num_shards: int, names: Sequence[str]) -> None:
        """Put all parts together; the files appear whole or not at all, and an earlier prediction's are removed."""
        files = self._files
        targets = {
            "predictions": (files.output, ("guid", "tag")),
            "probabilities": (files.probabilities, ("guid", "prediction", *(f"prob_{name}" for name in names))),
            "quarantine": (files.quarantine, COLUMNS),
        }
        for path in (files.metrics, files.encodings):  # of labels and encodings, which nobody looks at here
            path.unlink(missing_ok=True)
        if not any(self.path("quarantine", shard).stat().st_size for shard in range(num_shards)):
            files.quarantine.unlink(missing_ok=True)
            del targets["quarantine"]
        with ExitStack() as stack:
            temporaries = {}
            for kind, (target, header) in targets.items():
                temporaries[target] = temporary = temporary_path(target)
                stack.callback(temporary.unlink, missing_ok=True)
                with temporary.open("xb") as whole:
                    whole.write(f"{','.join(header)}\n".encode())
                    for shard in range(num_shards):
                        with self.path(kind, shard).open("rb") as part:
                            shutil.copyfileobj(part, whole)
            put_in_place(temporaries)
        self._remove(range(num_shards))

    @contextmanager
    def begin(self, shards: Sequence[int]) -> Iterator[None]:
        """Empty files, whatever a prediction that was killed has left; an error removes them."""
        try:
            for kind in self.KINDS:
                for shard in shards:
                    self.path(kind, shard).unlink(missing_ok=True)
                    self.path(kind, shard).touch(exist_ok=False)
            yield
        except BaseException:
            self._remove(shards)
            raise

    def _remove(self, shards: Sequence[int]) -> None:
        for kind in self.KINDS:
            for shard in shards:
                self.path(kind, shard).unlink(missing_ok=True)


def predict_stream(run: LoadedRun, arguments: EvaluationArguments, accelerator: Accelerator) -> None:
    """Answer every row of the shards; every rank calls it, and takes every world_size-th shard.

    Rows are answered whatever is wrong with them. Labels are not looked at: figures would need all rows at once.

    Raises:
        InputError: there are no shards, or the output can't be written, which is found out before the first answer.
        RankError: the model's answers aren't finite, or writing them fails.
        ShardError: a shard can't be read.
    """
    shards = find_shards(arguments.predict, "test")
    if shards is None:
        raise InputError(
            f"There are no test-*.parquet or test-*.tar in {arguments.predict}; write them with python -m "
            "data_utils.shard --for_prediction, or name others with a glob."
        )
    check_columns(shards, labelled=False)
    shards = shards.with_text_encoding(run.data.text_encoding)
    files = OutputFiles(Path(arguments.output))
    files.prepare([*_files_read(shards), *run.list_files()])
    parts = _PartFiles(files)
    batches = ShardBatches(
        shards,
        prepare=run.row_preparer(for_prediction=True),
        collator=run.collator,
        batch_size=arguments.per_device_eval_batch_size,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    try:
        with parts.begin([number for number, _ in batches.own]):
            count, faults = _answer(run, batches, parts, accelerator, num_workers=arguments.dataloader_num_workers)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                parts.merge(len(shards.shards), run.label_names)
    except OSError as error:
        sentence = describe_refusal(error, path=files.output)
        raise RankError(
            sentence or f"Cannot write beside {files.output} ({error}); all ranks need one --output folder."
        ) from error
    found = gather_object([(count, faults)])
    if accelerator.is_main_process:
        for (reason, action), number in sorted(sum((each for _, each in found), Counter()).items()):
            logger.warning("%s: %d %s (rows of %s)", reason, number, action, files.quarantine)
        total = sum(each for each, _ in found)
        show(f"{total} predictions are in {files.output}, probabilities and faulty rows beside it.")


def _files_read(shards: ShardSet) -> list[Path]:
    """The shards on disk, and where their manifest is if they have one."""
    paths = [path for shard in shards.shards if (path := shard.local_path) is not None]
    return [*paths, *{path.with_name(MANIFEST) for path in paths}]


def _answer(
    run: LoadedRun, batches: ShardBatches, parts: _PartFiles, accelerator: Accelerator, *, num_workers: int
) -> tuple[int, Counter[tuple[str, str]]]:
    """Write what this rank's shards give; returns its number of rows, and that of faults by reason and action."""
    model, count, faults = run.load_model(), 0, Counter()
    loader, is_main = StreamLoader(batches, num_workers=num_workers), accelerator.is_main_process
    with inference_context(model, accelerator):
        for batch in progress(
            loader, description="predict", unit="batches", total=batches.num_batches, is_shown=is_main, stays=False
        ):
            if ERROR in batch:
                raise ShardError(batch[ERROR])
            shard, guids, entries = (batch.pop(name) for name in (SHARD, GUIDS, ENTRIES))
            probabilities = classify(model, send_to_device(batch, accelerator.device))["probabilities"].cpu()
            if not probabilities.isfinite().all():
                raise RankError(
                    "The model's output is not finite; its weights or its precision are at fault: take "
                    "--mixed_precision no, or another run."
                )
            parts.write(shard, guids, probabilities, entries, run.label_names)
            count += len(guids)
            faults.update((entry.reason, entry.action) for entry in entries)
    return count, faults
