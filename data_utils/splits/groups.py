"""Rows that must not be parted: augmented copies, and rows of an equal text or an equal picture."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from data_utils.console.screen import printable
from data_utils.near.pairs import NearPairs
from data_utils.near.pictures import find_near_pictures
from data_utils.near.texts import find_near_texts
from data_utils.splits.split_file import Split
from modeling.errors import InputError

logger = logging.getLogger(__name__)
Numbers = Sequence[int] | np.ndarray
_COPY = re.compile(r"^(.+)_[ti]\d+$")
# Shares of the rows in one group: what is refused, and what is told.
_MOST, _MANY = 0.5, 0.2
_SHOWN = 60


def _parent_guids(guid: str) -> Iterator[str]:
    """The guid a copy was made from, then the one that was made from, and so on: `12_t1` and `12` for `12_t1_i2`."""
    while match := _COPY.match(guid):
        guid = match.group(1)
        yield guid


def root_guid(guid: str) -> str:
    """The guid a copy was made from, in the list or not: `12` for `12_t1`, `12_i1` and `12_t1_i2`, `12` for itself."""
    return [guid, *_parent_guids(guid)][-1]


def find_copies(guids: Sequence[str]) -> np.ndarray:
    """Which of N rows are augmented copies of another row of the list: bool array (N,).

    One without its parent, as `12_t1` without `12`, may judge and be judged like any row, together with its siblings.
    """
    known = set(guids)
    return np.array([any(parent in known for parent in _parent_guids(guid)) for guid in guids], dtype=bool)


def find_members(part: Collection[str], guids: Sequence[str]) -> np.ndarray:
    """Which of N rows are of a part: bool array (N,)."""
    members = set(part)
    return np.array([guid in members for guid in guids], dtype=bool)


def find_groups(dataset: Dataset, group_by: str) -> np.ndarray:
    """`group_ids` as --group_by asks for them; those of the same rows are kept, for the trainings of a process."""
    if group_by == "equal":
        return group_ids(dataset)
    return _find_near_groups(_Kept(dataset))


class _Kept(NamedTuple):
    """A data set that is known by its fingerprint."""

    dataset: Dataset

    def __hash__(self) -> int:
        return hash(self.dataset._fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self.dataset._fingerprint == other.dataset._fingerprint


@lru_cache(maxsize=1)
def _find_near_groups(kept: _Kept) -> np.ndarray:
    start, dataset = time.perf_counter(), kept.dataset
    texts = dataset.select_columns("text").with_format(None)[:]["text"]
    groups = group_ids(dataset, near=[find_near_texts(texts), find_near_pictures(dataset)])
    counts = (len(np.unique(each)) for each in (group_ids(dataset), groups))
    took = time.perf_counter() - start
    logger.info("Grouped by near texts and pictures: %d groups, and %d by equal ones (%.1f s).", *[*counts][::-1], took)
    return groups


def group_ids(dataset: Dataset, *, near: Iterable[NearPairs] = ()) -> np.ndarray:
    """Equal numbers for rows that must not be parted: int64 array (N,) for the N rows of `load_pairs`.

    Rows are in one group if they have an equal text (`text_key`), equal picture bytes (`image_key`), are copies of
    one pair (`root_guid`) or a pair of `near`, directly or through other rows.
    """
    columns = dataset.select_columns(["guid", "text_key", "image_key"]).with_format(None)[:]
    parent = list(range(len(dataset)))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    # A row of several pictures has a key of each.
    pictures = [(row, key) for row, keys in enumerate(columns["image_key"]) if keys for key in keys.split(",")]
    roots = [root_guid(guid) for guid in columns["guid"]]
    for keys in (enumerate(columns["text_key"]), pictures, enumerate(roots)):
        first: dict[str, int] = {}
        for row, key in keys:
            if key is not None:
                parent[find(row)] = find(first.setdefault(key, row))
    for pairs in near:
        for row, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
            parent[find(row)] = find(other)
    return np.array([find(row) for row in range(len(dataset))], dtype=np.int64)


def check_largest_group(dataset: Dataset, groups: Numbers) -> None:
    """`InputError`, naming the remedy, where one of the `group_ids` holds over half of the rows."""
    rows = _find_largest(groups)
    if len(rows) == 1 or len(rows) <= _MANY * len(groups):
        return
    fault = f"{len(rows)} of {len(groups)} rows can't be parted for validation: {_describe(dataset, rows)}"
    if len(rows) > _MOST * len(groups):
        raise InputError(f"{fault} Or take a --split_file, or --val_ratio 0 to train on all.")
    logger.warning("%s", fault)


def check_fold_sizes(folds: Sequence[Split], dataset: Dataset, groups: Numbers) -> None:
    """`InputError`, naming the remedy, where one fold judges over twice as many rows as another."""
    sizes = sorted((len(fold.val) for fold in folds), reverse=True)
    if sizes[0] <= 2 * sizes[-1] + 2:  # small folds of small groups may differ by chance
        return
    rows = _find_largest(groups)
    raise InputError(
        f"The {len(folds)} folds would judge {', '.join(map(str, sizes))} rows, too unlike to be compared, since "
        f"{len(rows)} rows can't be parted: {_describe(dataset, rows)} Or ask for fewer folds."
    )


def _find_largest(groups: Numbers) -> np.ndarray:
    """Numbers of the rows of the largest group."""
    numbers, counts = np.unique(np.asarray(groups), return_counts=True)
    return np.flatnonzero(np.asarray(groups) == numbers[counts.argmax()])


def _describe(dataset: Dataset, rows: np.ndarray) -> str:
    """What most rows of a group share, and what to do where it stands for nothing."""
    names = [name for name in ("guid", "text", "text_key", "image_key") if name in dataset.column_names]
    columns = dataset.select_columns(names).with_format(None).select(rows)[:]
    counts = {name: Counter(filter(None, columns[name])) for name in ("text_key", "image_key")}
    shared = max(counts, key=lambda name: max(counts[name].values(), default=0))
    key, count = next(iter(counts[shared].most_common(1)), ("", 0))
    if count < len(rows) / 2:
        return "equal texts, equal pictures and copies tie them together. Take repeated pairs out of the list."
    first = columns[shared].index(key)
    guid, (word, remove) = columns["guid"][first], (("text", "empty"), ("picture", "delete"))[shared == "image_key"]
    text = columns["text"][first] if "text" in columns and word == "text" else ""
    return (
        f"{count} of them have the {word} of {guid!r}{f', {printable(repr(text), _SHOWN)}' if text else ''}. If it "
        f"stands for no {word}, {remove} these files: a {word} that is missing ties no rows together."
    )
