"""Drawing validation parts and folds: stratified, and by whole groups, so that no twin of a row is in another part."""

from __future__ import annotations

import logging
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedGroupKFold

from data_utils.splits.groups import Numbers, find_copies, find_members
from data_utils.splits.split_file import Split
from modeling.errors import InputError

logger = logging.getLogger(__name__)
_KINDS = "groups of equal texts, equal pictures and copies"


def find_strata(labels: ArrayLike) -> Numbers:
    """A class number for each of N rows, (N,), by which parts and folds are made alike.

    Of several labels that of the rarest one, and one for rows without any; of numbers that of the tenth they are in.
    """
    values = np.asarray(labels)
    if values.dtype.kind == "i":
        return values
    if values.ndim == 1:
        return np.digitize(values, np.unique(np.nanquantile(values, np.linspace(0.1, 0.9, 9))))
    order = np.argsort(np.nansum(values, axis=0), kind="stable")
    return np.where(values.max(axis=1) > 0, order[values[:, order].argmax(axis=1)], values.shape[1])


def make_split(guids: Sequence[str], labels: Numbers, groups: Numbers, *, val_ratio: float, seed: int) -> Split:
    """Draw a validation part, stratified by class and by whole groups.

    The same rows give the same split in any order. Copies (`find_copies`) have no say in it, see `with_copies`.

    Args:
        guids, labels, groups: of N rows the guids, each once, class numbers, and group numbers (`group_ids`).
        val_ratio: share of validation in [0, 1); 0 leaves it empty, else `InputError` where a part would be.
        seed: of the draw.
    """
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    rows = zip(guids, labels, groups, find_copies(guids), strict=True)
    for guid, label, group, is_copy in sorted(rows):  # so that the rows' own order has no say
        if not is_copy:
            members[group].append((guid, int(label)))
    found = list(members.values())
    classes = [Counter(label for _, label in rows) for rows in found]
    chosen = _choose_validation(classes, val_ratio, seed) if val_ratio > 0 else set()
    val = tuple(sorted(guid for number in chosen for guid, _ in found[number]))
    train = tuple(sorted(guid for number, rows in enumerate(found) if number not in chosen for guid, _ in rows))
    if not train or (val_ratio > 0 and not val):
        raise InputError(
            f"{len(train + val)} pairs in {len(found)} {_KINDS} (guids that end in _t1 or _i1) cannot be split with "
            f"--val_ratio {val_ratio}: the {'validation' if train else 'training'} part would be empty. Give more "
            "pairs, another --val_ratio, or 0 to train on all; rename pairs that only look like copies."
        )
    return with_copies(Split(train, val, seed=seed, val_ratio=val_ratio), guids, groups)


def _choose_validation(groups: Sequence[Counter[int]], val_ratio: float, seed: int) -> set[int]:
    """Numbers of the groups, given by their classes, that go to validation: each class gets up to its share.

    A class whose groups are all larger than its share still gets its smallest group, if it keeps another to train on.
    """
    rows_of, groups_of = Counter[int](), Counter[int]()
    for classes in groups:
        rows_of.update(classes)
        groups_of.update(classes.keys())
    quota = {label: max(round(val_ratio * count), 1 if groups_of[label] > 1 else 0) for label, count in rows_of.items()}
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: set[int] = set()
    rows_taken, groups_taken = Counter[int](), Counter[int]()

    def keeps_training(number: int) -> bool:
        return all(groups_taken[label] + 1 < groups_of[label] for label in groups[number])

    def take(number: int) -> None:
        chosen.add(number)
        rows_taken.update(groups[number])
        groups_taken.update(groups[number].keys())

    for number in order:
        fits = all(rows_taken[label] + count <= quota[label] for label, count in groups[number].items())
        if fits and keeps_training(number):
            take(number)
    for label in sorted(quota):
        rest = [] if rows_taken[label] else [n for n in order if label in groups[n] and keeps_training(n)]
        if rest:
            take(min(rest, key=lambda number: groups[number].total()))
    return chosen


def with_copies(split: Split, guids: Sequence[str], groups: Numbers) -> Split:
    """Add the copies among all N rows, with their `group_ids`, to a split of the rows they were made from.

    A copy is trained on if some row of its group is and none is held out. Copies of held-out rows are in no part:
    figures must be of real pairs, and training on the copies would give those away.
    """
    numbers = np.asarray(groups)
    trained, held_out = (
        np.isin(numbers, numbers[find_members(part, guids)]) for part in (split.train, split.val + split.test)
    )
    added = np.flatnonzero(find_copies(guids) & trained & ~held_out).tolist()
    return replace(split, train=tuple(sorted({*split.train, *(guids[row] for row in added)})))


def make_folds(
    guids: Sequence[str], labels: Numbers, groups: Numbers, *, num_folds: int, seed: int
) -> tuple[Split, ...]:
    """Deal the rows into K folds, stratified by class and by whole groups: every row is judged once.

    The same rows give the same folds in any order. Copies (`find_copies`) are only trained on, where their group is.

    Args:
        guids, labels, groups: as for `make_split`.
        num_folds: K; `InputError` where so many can't be made of these rows.
        seed: of the draw.

    Returns:
        K splits: each has the rows of one fold for validation, and all others for training, with their copies.
    """
    order = np.argsort(np.array(guids, dtype=object))
    order = order[~find_copies(guids)[order]]
    names = np.array(guids, dtype=object)[order]
    classes, numbers = np.asarray(labels)[order], np.asarray(groups)[order]
    _, first, members = np.unique(numbers, return_index=True, return_inverse=True)
    _check_folds(classes, len(first), num_folds)
    dealer = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # `_check_folds` says it
        # A group is named by its first row here: the numbers it came with depend on the rows' order.
        parts = list(dealer.split(names, classes, groups=first[members]))
    if not all(len(val) for _, val in parts):
        raise InputError(f"One of {num_folds} folds of {len(first)} groups would be empty; ask for fewer folds.")
    splits = (
        Split(tuple(names[train].tolist()), tuple(names[val].tolist()), seed=seed, val_ratio=1 / num_folds)
        for train, val in parts
    )
    return tuple(with_copies(split, guids, groups) for split in splits)


def _check_folds(classes: np.ndarray, num_groups: int, num_folds: int) -> None:
    counts = np.unique(classes, return_counts=True)[1]
    most = min(num_groups, int(counts.max()))
    if not 2 <= num_folds <= most:
        remedy = f"allowed are 2 to {most}" if most > 1 else "no folds can be made of so few: give more pairs"
        raise InputError(
            f"Got {num_folds} folds for {len(classes)} pairs in {num_groups} {_KINDS}, at most {counts.max()} of one "
            f"class; {remedy}."
        )
    if counts.min() < num_folds:
        logger.warning("The rarest class has %d rows: some of the %d folds judge none of it.", counts.min(), num_folds)


def hold_out(
    fold: Split, guids: Sequence[str], labels: Numbers, groups: Numbers, *, val_ratio: float, seed: int
) -> Split:
    """A fold for a model that is chosen by other rows than those that judge it, see `make_split`.

    The fold's validation rows become the test part; of the others `val_ratio` are kept for validation.
    """
    others = set(fold.train)
    rows = [row for row in zip(guids, labels, groups, strict=True) if row[0] in others]
    inner = make_split(*zip(*rows, strict=True), val_ratio=val_ratio, seed=seed)
    return Split(inner.train, inner.val, seed=seed, val_ratio=val_ratio, test=fold.val)
