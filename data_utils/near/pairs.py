"""Rows that are twins of each other, as pairs, and the groups that they make. Legend: N rows, P pairs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearPairs:
    """P pairs of rows, at least one path of pairs between any two rows that are twins.

    Attributes:
        first, second: (P,) row numbers.
        similarity: (P,) from 0 to 1, which is equal.
    """

    first: Numbers
    second: Numbers
    similarity: Floats

    @classmethod
    def join(cls, parts: Iterable[NearPairs]) -> NearPairs:
        """The pairs of all parts."""
        columns = ([each.first, each.second, each.similarity] for each in (NO_PAIRS, *parts))
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    def map(self, rows: Numbers) -> NearPairs:
        """The same of numbers that stand for others; a pair of a row with itself is left out."""
        first, second = rows[self.first], rows[self.second]
        kept = first != second
        return NearPairs(first[kept], second[kept], self.similarity[kept])

    def groups(self, num_rows: int) -> Numbers:
        """Equal numbers for rows that hang together, (N,)."""
        graph = coo_array((np.ones(len(self.first), bool), (self.first, self.second)), shape=(num_rows, num_rows))
        return connected_components(graph, directed=False)[1].astype(np.int64)


NO_PAIRS = NearPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def pair_equal(keys: Iterable[tuple[int, Hashable]]) -> tuple[Numbers, NearPairs]:
    """Of rows with keys, each key's first row, and the pair of every other row with it."""
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, row), row) for row, key in keys]
    equal = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    return np.array([*first.values()], np.int64), NearPairs(equal[:, 0], equal[:, 1], np.ones(len(equal), np.float32))
