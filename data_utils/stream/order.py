"""Which rows of a stream a worker reads, and in which order: arithmetic on row numbers, before anything is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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


class Piece(NamedTuple):
    """Neighbouring rows of a shard (`stop` None: to its end), of which those with number % stride == turn are read."""

    shard: int
    start: int
    stop: int | None
    stride: int = 1
    turn: int = 0


def count_batches(num_rows: int, settings: StreamSettings) -> int:
    """Batches per rank and epoch, the same on all; `InputError` where that is none on a rank."""
    share = num_rows // settings.world_size
    batches = share // settings.batch_size
    if not settings.drop_last and share:
        batches = -(-num_rows // (settings.world_size * settings.batch_size))
    if batches == 0:
        raise InputError(
            f"{num_rows} rows are too few for {settings.world_size} processes with --per_device_train_batch_size "
            f"{settings.batch_size}; launch fewer, or leave --dataloader_drop_last out."
        )
    return batches


def plan_pieces(
    starts: np.ndarray, settings: StreamSettings, *, epoch: int, worker: int, num_workers: int
) -> tuple[list[Piece], int]:
    """The share of a worker in an epoch of shards whose rows are counted: its pieces in order, and their rows.

    The shards, in an order of this epoch, are laid end to end and cut into equal ranges, one per rank and worker, so
    that every row is in one range and a range has at most two shards to share with its neighbours. The rank's batch i
    is made by worker i % num_workers.

    Args:
        starts: see `ShardSet.starts`.
    """
    num_rows = int(starts[-1])
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(starts) - 1)
    ends = np.diff(starts)[order].cumsum()
    start, stop = (rank * num_rows // settings.world_size for rank in (settings.rank, settings.rank + 1))
    if settings.drop_last:
        stop = start + count_batches(num_rows, settings) * settings.batch_size
    full, rest = divmod(stop - start, settings.batch_size)
    sizes = [
        settings.batch_size * len(range(number, full, num_workers)) + (rest if full % num_workers == number else 0)
        for number in range(num_workers)
    ]
    first = start + sum(sizes[:worker])
    return list(_cut(order, ends, first, first + sizes[worker])), sizes[worker]


def _cut(order: np.ndarray, ends: np.ndarray, start: int, stop: int) -> Iterator[Piece]:
    """The pieces that rows start..stop of the shards laid end to end consist of."""
    for place in range(int(ends.searchsorted(start, side="right")), len(order)):
        begin = int(ends[place - 1]) if place else 0
        if begin >= stop:
            return
        first, last = max(start, begin) - begin, min(stop, int(ends[place])) - begin
        if first < last:
            yield Piece(int(order[place]), first, last)


def endless_pieces(num_shards: int, settings: StreamSettings, *, lane: int, num_lanes: int) -> Iterator[list[Piece]]:
    """The pieces of pass after pass over shards whose rows nobody counted, for one of all ranks' workers (`lane`).

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
        if self.next == self.num_rows:
            self.waiting[slot] = self.waiting[-1]
            self.waiting.pop()
        else:
            self.waiting[slot] = self.next
            self.next += 1
        return position
