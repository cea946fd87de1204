"""Drawing a validation part: stratified, and by whole groups, so that no twin of a row is in the other part."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_utils.splits.copies import choose_copies, find_copies
from data_utils.splits.split_file import Split
from modeling.errors import InputError


@dataclass(frozen=True)
class _Group:
    guids: tuple[str, ...]
    classes: Counter[int]


def _collect_groups(guids: Sequence[str], labels: Sequence[int], groups: Sequence[int]) -> list[_Group]:
    """Groups with their class counts, in the order of their smallest guid: the rows' own order has no say."""
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for guid, label, group in sorted(zip(guids, labels, groups, strict=True)):
        members[group].append((guid, label))
    return [
        _Group(tuple(guid for guid, _ in rows), Counter(int(label) for _, label in rows)) for rows in members.values()
    ]


def _choose_validation(groups: list[_Group], val_ratio: float, seed: int) -> set[int]:
    """Numbers of the groups that go to validation: each class is filled up to its share, never beyond it.

    A class whose groups are all larger than its share still gets its smallest group, if it keeps another to train on.
    """
    rows_of, groups_of = Counter[int](), Counter[int]()
    for group in groups:
        rows_of.update(group.classes)
        groups_of.update(group.classes.keys())
    quota = {label: max(round(val_ratio * count), 1 if groups_of[label] > 1 else 0) for label, count in rows_of.items()}
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: set[int] = set()
    rows_taken, groups_taken = Counter[int](), Counter[int]()

    def keeps_training(group: _Group) -> bool:
        return all(groups_taken[label] + 1 < groups_of[label] for label in group.classes)

    def take(number: int) -> None:
        chosen.add(number)
        rows_taken.update(groups[number].classes)
        groups_taken.update(groups[number].classes.keys())

    for number in order:
        classes = groups[number].classes
        fits = all(rows_taken[label] + count <= quota[label] for label, count in classes.items())
        if fits and keeps_training(groups[number]):
            take(number)
    for label in sorted(quota):
        if rows_taken[label] == 0:
            rest = [n for n in order if label in groups[n].classes and keeps_training(groups[n])]
            if rest:
                take(min(rest, key=lambda n: len(groups[n].guids)))
    return chosen


def make_split(
    guids: Sequence[str], labels: Sequence[int], groups: Sequence[int], *, val_ratio: float, seed: int
) -> Split:
    """Draw a validation part, stratified by class and by whole groups.

    The same rows give the same split in any order. Copies (`find_copies`) have no say in it: they join the training
    rows, or, where their group is held out, no part.

    Args:
        guids: N guids, each once.
        labels: N class numbers.
        groups: N group numbers (`group_ids`).
        val_ratio: share of validation in [0, 1); 0 leaves it empty.
        seed: of the draw.

    Raises:
        InputError: a part would be empty.
    """
    rows = np.flatnonzero(~find_copies(guids))
    found = _collect_groups(*([column[row] for row in rows] for column in (guids, labels, groups)))
    chosen = _choose_validation(found, val_ratio, seed) if val_ratio > 0 else set()
    val = tuple(sorted(guid for number in chosen for guid in found[number].guids))
    train = tuple(sorted(guid for number, group in enumerate(found) if number not in chosen for guid in group.guids))
    if not train or (val_ratio > 0 and not val):
        raise InputError(
            f"{len(rows)} pairs in {len(found)} groups of equal texts, equal pictures and copies (guids that end in "
            f"_t1 or _i1) cannot be split with --val_ratio {val_ratio}: the "
            f"{'validation' if train else 'training'} part would be empty. Give more pairs, another --val_ratio, or 0 "
            "to train on all; rename pairs that only look like copies."
        )
    return with_copies(Split(train=train, val=val, seed=seed, val_ratio=val_ratio), guids, groups)


def with_copies(split: Split, guids: Sequence[str], groups: Sequence[int]) -> Split:
    """Add the copies to a split of the rows they were made from.

    A copy is trained on if its group is. Copies of held-out rows are in no part: figures must be of real pairs, and
    training on the copies would give those away.

    Args:
        split: parts without copies.
        guids: of all N rows.
        groups: their group numbers (`group_ids`).
    """
    added = choose_copies(guids, groups, train=split.train, held_out=split.val + split.test)
    return replace(split, train=tuple(sorted({*split.train, *added})))
