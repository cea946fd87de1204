"""Rows that say or show nearly the same: their labels, their parts, and how far a reader of them could get.

Legend: N rows, G groups of twins, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.near.pairs import NearPairs, Numbers
from data_utils.near.pictures import find_near_pictures
from data_utils.near.texts import find_near_texts
from data_utils.sources.label_forms import UNLABELLED
from data_utils.splits.groups import group_ids
from data_utils.splits.split_file import Split

KINDS = ("text", "image", "both")
_RESAMPLES = 2000


@dataclass(frozen=True)
class Twins:
    """Which of N rows are twins.

    Attributes:
        pairs: by "text" and "image" the pairs that are near or equal.
        keys: by "text" and "image" the rows' keys, by which equal ones are found.
        together: (N,) group numbers of rows that must not be parted, by a near text, a near picture or as copies.
        names: of each row what its label says, null for nothing.
    """

    pairs: Mapping[str, NearPairs]
    keys: Mapping[str, Sequence[str | None]]
    together: Numbers
    names: Sequence[str]

    @cached_property
    def groups(self) -> dict[str, Numbers]:
        """(N,) group numbers by "text", by "image", and by "both": of rows that are twins in text and picture."""
        found = {side: pairs.groups(len(self.together)) for side, pairs in self.pairs.items()}
        both = np.stack([found["text"], found["image"]], axis=1)
        return found | {"both": np.unique(both, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)}

    def members(self, kind: str) -> list[list[int]]:
        """The rows of each group of at least two, in the order of their first rows."""
        return list_groups(self.groups[kind])

    def differ(self, rows: Sequence[int]) -> bool:
        """Whether the labels of rows contradict each other."""
        return len({self.names[row] for row in rows} - {UNLABELLED}) > 1


def find_twins(dataset: Dataset, names: Sequence[str]) -> Twins:
    """Of the rows of `load_pairs`, with the names of their labels."""
    columns = dataset.select_columns(["text", "text_key", "image_key"]).with_format(None)[:]
    pairs = {"text": find_near_texts(columns["text"]), "image": find_near_pictures(dataset)}
    keys = {side: columns[f"{side}_key"] for side in pairs}
    return Twins(pairs, keys, group_ids(dataset, near=[*pairs.values()]), names)


def list_groups(groups: Numbers) -> list[list[int]]:
    """The rows of each group of at least two rows."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        rows[group].append(row)
    return [members for members in rows.values() if len(members) > 1]


def describe_twins(twins: Twins) -> dict[str, dict[str, int]]:
    """Counts of groups by kind, and of their rows: all, those that near twins make or join, those that contradict."""
    found = {}
    for kind in KINDS:
        members, sides = twins.members(kind), ("text", "image") if kind == "both" else (kind,)
        found[kind] = {
            "groups": len(members),
            "rows": sum(map(len, members)),
            "largest": max(map(len, members), default=0),
            "groups beyond equal ones": sum(
                any(len({twins.keys[side][row] for row in rows}) > 1 for side in sides) for rows in members
            ),
            "contradicting": sum(map(twins.differ, members)),
        }
    return found


def find_leaks(groups: Numbers, guids: Sequence[str], split: Split) -> list[list[int]]:
    """Groups of rows that stand in two parts of a split, without the rows that are in none."""
    part_of = {guid: part for part, members in split.parts.items() for guid in members}
    placed = ([row for row in rows if guids[row] in part_of] for rows in list_groups(groups))
    return [rows for rows in placed if len({part_of[guids[row]] for row in rows}) > 1]


def bound_reader(groups: Numbers, labels: NDArray[np.int64], num_classes: int) -> dict[str, Any] | None:
    """How far a reader could get who is told no more than what twins share; None without labelled twins.

    A row's label and that of a twin drawn from its group are two draws for the same content. The share r of rows that
    contradict theirs is the error of the nearest-neighbour rule at distance 0, and no reader errs less than
    e = (C - 1) / C * (1 - sqrt(1 - r * C / (C - 1))) (Cover and Hart 1967, their bound for C classes, solved for e). It
    holds for rows that are labelled as twins are. Intervals are 95 % percentiles of resampled groups.

    Args:
        groups: (N,) group numbers.
        labels: (N,) class numbers, negative without one.
        num_classes: C.
    """
    known = labels >= 0
    _, inverse = np.unique(groups[known], return_inverse=True)
    counts = np.zeros((inverse.max(initial=-1) + 1, num_classes))
    np.add.at(counts, (inverse, labels[known]), 1)
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        return None
    sizes = counts.sum(axis=1)
    differing = sizes - (counts * (counts - 1)).sum(axis=1) / (sizes - 1)  # rows of a group times their share
    weights = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _RESAMPLES)
    shares = np.concatenate([[differing.sum() / sizes.sum()], (weights @ differing) / (weights @ sizes)])
    ratio = num_classes / (num_classes - 1)
    reachable = 1 - (1 - np.sqrt(np.maximum(0, 1 - shares * ratio))) / ratio
    disagreement, accuracy = (
        {"value": float(each[0]), "interval": [float(each) for each in np.quantile(each[1:], (0.025, 0.975))]}
        for each in (shares, reachable)
    )
    return {"groups": len(counts), "rows": int(sizes.sum()), "disagreement": disagreement, "accuracy": accuracy}
