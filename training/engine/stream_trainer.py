"""The trainer over a stream, and the growing list of what was wrong with its rows."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from data_utils.sources.quarantine import COLUMNS, Entry
from data_utils.stream.loader import StreamLoader, take_entries
from data_utils.system.files import format_csv, write_csv
from data_utils.system.refusals import tell_refusals
from modeling.errors import InputError
from training.engine.objective import ClassBalance, balance_classes
from training.engine.trainer import SentimentTrainer

logger = logging.getLogger(__name__)
# A run stops when so many rows have passed, from its first on, of which none can be trained on.
USELESS_ROWS = 1000


class StreamQuarantine:
    """quarantine.csv of a stream, written as faults are met: each rank has a file, which the main one takes in at last.

    Args:
        path: of quarantine.csv, on this machine.
        rank: of this process.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self._is_main = rank == 0
        self._own = path if rank == 0 else path.with_name(f".{path.name}.rank{rank}")
        self._known: set[tuple[str, ...]] | None = None  # grows with the faulty rows, not with all

    def add(self, entries: Sequence[Entry]) -> None:
        """Enter faults that don't stand there already, from an earlier epoch or from before the run was resumed."""
        self._enter([tuple(map(str, astuple(entry))) for entry in entries])

    def finish(self) -> None:
        """Send the entries to the main rank, which says how many there are of what; every rank calls it.

        They are sent, not read there, as machines needn't share files.
        """
        sent = gather_object([] if self._is_main else list(_read_rows(self._own)))
        if self._is_main:
            self._enter(sent)
            counts = Counter((row[2], row[3]) for row in _read_rows(self._own))
            for (reason, action), count in sorted(counts.items()):
                logger.info("%s: %d %s (rows of %s)", reason, count, action, self._own)
        PartialState().wait_for_everyone()  # a rank that is killed before the main one has written loses nothing
        if not self._is_main:
            self._own.unlink(missing_ok=True)

    def _enter(self, rows: Sequence[Sequence[str]]) -> None:
        if not rows:
            return
        if self._known is None:
            if self._own.is_symlink() or self._own.is_fifo():  # none of ours, whatever it leads to
                self._own.unlink()
            if self._own.exists():  # without what a full disk, or the end of a job, left of the last line
                os.truncate(self._own, self._own.read_bytes().rfind(b"\n") + 1)
            self._known = {tuple(row[:3]) for row in _read_rows(self._own)}
        new = {key: row for row in rows if (key := tuple(row[:3])) not in self._known}
        if not new:
            return
        self._known.update(new)
        if not self._own.exists():
            write_csv(self._own, [COLUMNS])
        appending = self._own.open("a", encoding="utf-8", errors="backslashreplace", newline="")
        with tell_refusals(self._own), appending as file:
            file.writelines(format_csv(new.values()))


def _read_rows(path: Path) -> Iterator[list[str]]:
    """The entries of a list of faults; what is none of ours is passed over."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file)
            try:
                next(rows, None)  # the header
                yield from (row for row in rows if len(row) == len(COLUMNS))
            except csv.Error as error:
                raise InputError(f"{path} is no list of faults ({error}); move it away.") from error


class StreamTrainer(SentimentTrainer):
    """`SentimentTrainer` over a `PairStream`, which shards, shuffles and batches by itself.

    Raises (while training):
        ShardError: a shard can't be read, or a row has a fault under --on_bad_pair error.
        InputError: no row can be trained on.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        folder = Path(self.args.output_dir)  # with checkpoints, in the run's; of --dry_run a temporary one
        path = (folder if self.args.dry_run else folder.parent) / "quarantine.csv"
        self._faults = StreamQuarantine(path, self.args.process_index)
        self._useless_updates: int | None = None  # made before the first one that learns from a row; then None
        self._last_fault: Entry | None = None

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """As in Trainer; then the main rank's quarantine.csv holds the entries of all."""
        self._useless_updates = None if resume_from_checkpoint or self.args.dry_run else 0
        result = super().train(resume_from_checkpoint, **kwargs)
        if self._useless_updates:
            self._refuse_useless_rows()
        if not self.args.dry_run:  # whose list of faults goes with its folder
            self._faults.finish()
        return result

    def get_train_dataloader(self) -> DataLoader:
        """The stream's own loader. Accelerate would read all on rank 0 and send it round, or shard it once more."""
        args = self.args
        return StreamLoader(
            self.train_dataset,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """As in `SentimentTrainer`, after the batches' faults were entered."""
        batches, weight_sum = super().get_batch_samples(map(self._take_faults, epoch_iterator), num_batches, device)
        return batches, weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny)  # 0 where no row of an update counts

    def _read_sums(self, sums: Sequence[float]) -> None:
        super()._read_sums(sums)
        if sums[0] > 0:
            self._useless_updates = None
        elif self._useless_updates is not None:
            self._useless_updates += 1
            if self._useless_updates * self.args.global_batch_size >= USELESS_ROWS:
                self._refuse_useless_rows()

    def _refuse_useless_rows(self) -> None:
        """Stop a run that has learnt from no row yet, on all ranks at once, as all know the rows' sum of weights."""
        self._faults.finish()
        entry = self._last_fault
        last = f" (the last one: {entry.reason}, {entry.detail})" if entry else ""
        raise InputError(
            f"No row of the first {self._useless_updates} updates can be trained on{last}; quarantine.csv names "
            "them. If their labels are right, name them with --labels."
        )

    def _balance_classes(self) -> ClassBalance:
        counts = self.train_dataset.shards.label_counts
        if counts is None or not self.args.balances_classes:
            return ClassBalance(torch.ones(len(self.labels)), torch.zeros(len(self.labels)))
        return balance_classes(self.args, torch.tensor([counts[label] for label in self.labels]))

    def _mask_padding_duplicates(self, batches: list[dict[str, Tensor]]) -> None:
        """A stream fills up with rows that count nothing by itself."""

    def begin_epoch(self, epoch: int, *, skipped: int) -> None:
        """Have the stream begin behind the batches of a resumed epoch that were trained on."""
        self.train_dataset.start_epoch(epoch, skipped=skipped)

    def _take_faults(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        entries = take_entries(batch)
        self._last_fault = entries[-1] if entries else self._last_fault
        self._faults.add(entries)
        return batch
