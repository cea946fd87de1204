"""Which rows of a stream a worker reads, and in which order: arithmetic on row numbers, before anything is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_utils.shards.shard_set import ShardSet
from modeling.errors import InputError


@dataclass(frozen=True)
class StreamSettings:
    """What decides who reads which row when.

    Attributes:
        seed: of the order.
        batch_size: rows per rank and batch.
        world_size, rank: of the launch.
        buffer_size: rows that wait undecoded in each worker, from which the next one is drawn.
        drop_last: leave out an epoch's last rows that don't fill a batch on every rank.
        num_batches: per rank, for shards whose rows nobody counted; else None.
    """

    seed: int
    batch_size: int
    world_size: int
    rank: int
    buffer_size: int
    drop_last: bool
    num_batches: int | None


@dataclass(frozen=True)
class Piece:
    """Neighbouring rows of a shard (`stop` None: to its end), of which a reader takes those with
    number % stride == turn; `position` numbers the first one in the reader's own order, where that is known."""

    shard: int
    start: int
    stop: int | None
    position: int = 0
    stride: int = 1
    turn: int = 0


@dataclass(frozen=True)
class Lane:
    """The share of one worker of one rank in an epoch.

    Attributes:
        pieces: to be read in this order.
        num_rows: of all pieces.
    """

    pieces: tuple[Piece, ...]
    num_rows: int


def count_batches(num_rows: int, settings: StreamSettings) -> int:
    """Batches per rank and epoch, the same on all ranks.

    Raises:
        InputError: there are too few rows to give each rank one (with `drop_last`, one batch).
    """
    share = num_rows // settings.world_size
    if settings.drop_last:
        batches = share // settings.batch_size
    else:
        batches = -(-num_rows // (settings.world_size * settings.batch_size)) if share else 0
    if batches == 0:
        raise InputError(
            f"{num_rows} rows are too few for {settings.world_size} processes with --per_device_train_batch_size "
            f"{settings.batch_size}; launch fewer, or leave --dataloader_drop_last out."
        )
    return batches


def rank_range(num_rows: int, settings: StreamSettings) -> tuple[int, int]:
    """First and last (exclusive) row of a rank, in an epoch's order of shards; sizes differ by one row at most."""
    start, stop = (number * num_rows // settings.world_size for number in (settings.rank, settings.rank + 1))
    if settings.drop_last:
        stop = start + count_batches(num_rows, settings) * settings.batch_size
    return start, stop


def plan_lane(shards: ShardSet, settings: StreamSettings, *, epoch: int, worker: int, num_workers: int) -> Lane:
    """The share of a worker in an epoch of shards whose rows are counted.

    The shards, in an order drawn from (seed, epoch), are laid end to end and cut into equal ranges, one per rank, and
    each of them into ranges for its workers: so a worker reads shards of its own, but for the first and the last, which
    it may share with its neighbours. The rank's batch i is made by worker i % num_workers.
    """
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(shards.shards))
    ends = np.diff(shards.starts)[order].cumsum()
    start, stop = rank_range(shards.num_rows, settings)
    sizes = [_worker_rows(stop - start, settings, number, num_workers) for number in range(worker + 1)]
    first = start + sum(sizes[:worker])
    return Lane(
        pieces=tuple(_cut(order, ends, first, first + sizes[worker])),
        num_rows=sizes[worker],
    )


def _worker_rows(rank_rows: int, settings: StreamSettings, worker: int, num_workers: int) -> int:
    full, rest = divmod(rank_rows, settings.batch_size)
    return settings.batch_size * len(range(worker, full, num_workers)) + (rest if full % num_workers == worker else 0)


def _cut(order: np.ndarray, ends: np.ndarray, start: int, stop: int) -> Iterator[Piece]:
    """The pieces that rows start..stop of the shards laid end to end consist of."""
    position = 0
    for place in range(int(ends.searchsorted(start, side="right")), len(order)):
        begin = int(ends[place - 1]) if place else 0
        if begin >= stop:
            return
        first, last = max(start, begin) - begin, min(stop, int(ends[place])) - begin
        if first < last:
            yield Piece(int(order[place]), first, last, position)
            position += last - first


def endless_pieces(num_shards: int, settings: StreamSettings, *, lane: int, num_lanes: int) -> Iterator[list[Piece]]:
    """The pieces of pass after pass over shards whose rows nobody counted.

    The shards are dealt to the lanes once; where there are fewer of them than lanes, every lane goes through all of
    them and takes rows by turn. Either way no row is read by two lanes, and a lane reads all of its own in each pass.
    """
    dealt = np.random.default_rng(settings.seed).permutation(num_shards)
    by_turn = num_shards < num_lanes
    own = dealt if by_turn else dealt[lane::num_lanes]
    stride, turn = (num_lanes, lane) if by_turn else (1, 0)
    number = 0
    while True:
        order = np.random.default_rng([settings.seed, number, lane]).permutation(own)
        yield [Piece(int(shard), 0, None, stride=stride, turn=turn) for shard in order]
        number += 1


class ShuffleOrder:
    """The order in which a shuffle buffer gives out the rows that are read one after the other.

    It works on positions alone, so that rows which were trained on before a resume can be passed over unread.

    Attributes:
        waiting: positions in the buffer.
        next: the first position that has not come into it.
    """

    def __init__(self, num_rows: int | None, *, buffer_size: int, seed: str) -> None:
        self.num_rows = num_rows
        self.next = buffer_size if num_rows is None else min(buffer_size, num_rows)
        self.waiting = list(range(self.next))
        self._random = random.Random(seed)

    def draw(self) -> int | None:
        """The position of the next row; None when there is none left."""
        if not self.waiting:
            return None
        slot = self._random.randrange(len(self.waiting))
        position = self.waiting[slot]
        if self.num_rows is None or self.next < self.num_rows:
            self.waiting[slot] = self.next
            self.next += 1
        else:
            self.waiting[slot] = self.waiting[-1]
            self.waiting.pop()
        return position
