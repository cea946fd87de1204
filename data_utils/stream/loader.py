"""Batches out of shards without a full pass, an index or a cache: memory stays as it is however many rows there are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_utils.prepare.collator import PairCollator
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import Entry
from data_utils.stream.order import Piece, ShuffleOrder, StreamSettings, count_batches, endless_pieces, plan_pieces
from data_utils.stream.rows import NumberedRow, RowPreparer

# Beside the tensors of a batch, what was wrong with its rows; in place of a batch, the error that ended the stream.
ENTRIES, ERROR = "entries", "error"


class ShardBatches(IterableDataset):
    """Batches of rows of shards; a subclass says which rows each worker of a loader takes."""

    def __init__(self, shards: ShardSet, *, prepare: RowPreparer, collator: PairCollator) -> None:
        super().__init__()
        self.shards = shards
        self.prepare = prepare
        self._collator = collator

    @property
    def num_batches(self) -> int | None:
        """Of all workers together; None where nobody counted the rows."""
        raise NotImplementedError

    def iterate(self, worker: int, num_workers: int) -> Iterator[dict[str, Any]]:
        """The batches of one worker, which a loader takes from all of them by turns."""
        raise NotImplementedError

    def collate(self, numbered: list[NumberedRow]) -> dict[str, Any]:
        """The batch of some rows, with ENTRIES; of no rows one that counts nothing."""
        rows, entries = self.prepare(numbered) if numbered else (self.prepare.fill(), [])
        return self._collator(rows) | {ENTRIES: entries}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        try:
            yield from self.iterate(0, 1) if info is None else self.iterate(info.id, info.num_workers)
        except ShardError as error:  # a worker's exception would come out with its whole traceback as the message
            yield {ERROR: str(error)}


class PairStream(ShardBatches):
    """The batches of one rank, epoch by epoch.

    Where the rows of the shards are counted (shards.json, or the footers of Parquet files), an epoch of N rows has
    ceil(N / (world_size * batch_size)) batches on every rank; each row is in one batch of one rank, none is left out. A
    rank that has one row less than others ends with a smaller batch, or with one that counts nothing, so all ranks do
    the same updates. With `drop_last` an epoch has floor(floor(N / world_size) / batch_size) full batches per rank, and
    the rows that remain are left out of it. Where rows aren't counted, the stream is one epoch of `num_batches` full
    batches, in which each worker goes round and round its own rows, and no row is read by two workers.

    The order depends on seed, epoch, rank, worker, their numbers and the buffer's size, and on nothing else.
    """

    def __init__(
        self, shards: ShardSet, settings: StreamSettings, *, prepare: RowPreparer, collator: PairCollator
    ) -> None:
        super().__init__(shards, prepare=prepare, collator=collator)
        self.settings = settings
        self._epoch = 0
        self._skipped = 0

    def __len__(self) -> int:
        """Rows that all ranks together are given in an epoch."""
        given = self.num_batches * self.settings.batch_size * self.settings.world_size
        return given if self.shards.num_rows is None else min(given, self.shards.num_rows)

    @property
    def num_batches(self) -> int:
        """Batches per rank and epoch."""
        num_rows, settings = self.shards.num_rows, self.settings
        return settings.num_batches or 0 if num_rows is None else count_batches(num_rows, settings)

    def start_epoch(self, epoch: int, *, skipped: int = 0) -> None:
        """Choose the epoch that the next iteration gives; its first `skipped` batches come empty, with nothing read."""
        self._epoch, self._skipped = epoch, skipped

    def iterate(self, worker: int, num_workers: int) -> Iterator[dict[str, Any]]:
        """See `ShardBatches`."""
        count, skipped = (len(range(worker, stop, num_workers)) for stop in (self.num_batches, self._skipped))
        yield from ({} for _ in range(skipped))
        size = self.settings.batch_size
        rows = self._draw(worker, num_workers, skipped=skipped * size)
        yield from (self.collate(list(islice(rows, size))) for _ in range(count - skipped))

    def collate(self, numbered: list[NumberedRow]) -> dict[str, Any]:
        """See `ShardBatches`; `ShardError` where a row has a fault, and --on_bad_pair is error."""
        batch = super().collate(numbered)
        if batch[ENTRIES] and self.prepare.on_bad_pair == "error":
            first = batch[ENTRIES][0]
            raise ShardError(f"Row {first.guid!r} has {first.reason} ({first.detail}) and --on_bad_pair is error.")
        return batch

    def _draw(self, worker: int, num_workers: int, *, skipped: int) -> Iterator[NumberedRow]:
        """The rows of a worker in the order of its shuffle buffer, without the first `skipped`.

        Of what lies before a resumed place only the rows are read that waited in the buffer then.
        """
        settings, num_rows = self.settings, None
        if self.shards.starts is None:
            lane, num_lanes = settings.rank * num_workers + worker, settings.world_size * num_workers
            passes = endless_pieces(len(self.shards.shards), settings, lane=lane, num_lanes=num_lanes)
        else:
            pieces, num_rows = plan_pieces(
                self.shards.starts, settings, epoch=self._epoch, worker=worker, num_workers=num_workers
            )
            passes = iter([pieces])
        name = f"{settings.seed} {self._epoch} {settings.rank} {worker} {num_workers}"
        order = ShuffleOrder(num_rows, buffer_size=settings.buffer_size, seed=name)
        for _ in range(skipped):
            order.draw()
        source = self._read(passes, frozenset(order.waiting), order.next)
        held: dict[int, NumberedRow] = {}
        while (position := order.draw()) is not None:
            while position not in held:
                found, row = next(source)
                held[found] = row
            yield held.pop(position)

    def _read(
        self, passes: Iterator[list[Piece]], waiting: Collection[int], first_new: int
    ) -> Iterator[tuple[int, NumberedRow]]:
        """Position and content of the rows at the positions `waiting`, and of all from `first_new` on."""
        starts, first, position = self.shards.starts, min(waiting, default=first_new), 0
        for turn, pieces in enumerate(passes):
            before = position
            for piece in pieces:
                shard = self.shards.shards[piece.shard]
                if piece.stop is not None and position + piece.stop - piece.start <= first:
                    position += piece.stop - piece.start
                    continue
                base = piece.shard << 32 if starts is None else int(starts[piece.shard])
                for row, read in iterate_shard(shard, self.shards.kind, start=piece.start, stop=piece.stop):
                    if row % piece.stride == piece.turn:
                        if position >= first_new or position in waiting:
                            yield position, NumberedRow(base + row, shard.name, read(), turn)
                        position += 1
            if position == before:
                raise ShardError("A worker has no row to read; use fewer --dataloader_num_workers, or processes.")


class StreamLoader(DataLoader):
    """A loader over `ShardBatches`, which are sharded and batched already; accelerate must not prepare it."""

    def __init__(self, batches: ShardBatches, **options: Any) -> None:
        super().__init__(batches, batch_size=None, collate_fn=_keep, **options)
        self._num_batches = batches.num_batches

    def __len__(self) -> int:
        if self._num_batches is None:
            raise TypeError("nobody counted the rows of these shards")
        return self._num_batches


def take_entries(batch: dict[str, Any]) -> list[Entry]:
    """Take out of a batch what was wrong with its rows; `ShardError` where it is the error that ended the stream."""
    if ERROR in batch:
        raise ShardError(batch[ERROR])
    return batch.pop(ENTRIES)


def _keep(batch: Any) -> Any:
    """For torch's conversion of what comes without batching, which would copy the tensors."""
    return batch
