"""Augmented copies of rows: which they are, and when they may be trained on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np

_COPY = re.compile(r"^(.+)_[ti]\d+$")


def _parent_guids(guid: str) -> Iterator[str]:
    """The guid a copy was made from, then the one that was made from, and so on: `12_t1` and `12` for `12_t1_i2`."""
    while match := _COPY.match(guid):
        guid = match.group(1)
        yield guid


def root_guid(guid: str) -> str:
    """The guid an augmented copy was made from: `12` for `12_t1`, `12_i1` and `12_t1_i2`, `12` for itself.

    It need not be in the list: copies whose parent was taken out still must not be parted.
    """
    return [guid, *_parent_guids(guid)][-1]


def find_copies(guids: Sequence[str]) -> np.ndarray:
    """Which rows are augmented copies of another row of the list.

    One without its parent, as `12_t1` without `12`, may judge and be judged like any row, together with its siblings.

    Args:
        guids: of all N rows.

    Returns:
        bool array (N,).
    """
    known = set(guids)
    return np.array([any(parent in known for parent in _parent_guids(guid)) for guid in guids], dtype=bool)


def choose_copies(
    guids: Sequence[str], groups: Sequence[int], *, train: Collection[str], held_out: Collection[str]
) -> list[str]:
    """The copies that may be trained on: those of whose group some row is trained on and none is held out.

    Args:
        guids: of all N rows.
        groups: their group numbers (`data_utils.splits.splits.group_ids`).
        train: guids that are trained on.
        held_out: guids that judge or choose what is trained.
    """
    numbers = np.asarray(groups)
    trained, judged = (np.isin(numbers, numbers[find_members(part, guids)]) for part in (train, held_out))
    return [guids[row] for row in np.flatnonzero(find_copies(guids) & trained & ~judged)]


def find_members(part: Collection[str], guids: Sequence[str]) -> np.ndarray:
    """Which of the N rows are of a part: bool array (N,)."""
    members = set(part)
    return np.array([guid in members for guid in guids], dtype=bool)
