"""Cross-validation: every row is judged once, by a model that saw neither it nor a twin of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from data_utils.splits.copies import find_copies
from data_utils.splits.draw import make_split, with_copies
from data_utils.splits.split_file import Split
from modeling.errors import InputError

logger = logging.getLogger(__name__)


def make_folds(
    guids: Sequence[str], labels: Sequence[int], groups: Sequence[int], *, num_folds: int, seed: int
) -> tuple[Split, ...]:
    """Deal the rows into folds, stratified by class and by whole groups (scikit-learn's `StratifiedGroupKFold`).

    The same rows give the same folds in any order. Copies (`find_copies`) are only trained on, where their
    group is.

    Args:
        guids: N guids, each once.
        labels: N class numbers.
        groups: N group numbers (`data_utils.splits.splits.group_ids`).
        num_folds: K.
        seed: of the draw.

    Returns:
        K splits: each has the rows of one fold for validation, and all others for training, with their copies.

    Raises:
        InputError: so many folds can't be made of these rows.
    """
    order = np.argsort(np.array(guids, dtype=object))
    order = order[~find_copies(guids)[order]]
    names = np.array(guids, dtype=object)[order]
    classes, numbers = np.asarray(labels)[order], np.asarray(groups)[order]
    num_groups, smallest, largest = len(np.unique(numbers)), *_class_sizes(classes)
    most = min(num_groups, largest)
    if not 2 <= num_folds <= most:
        raise InputError(
            f"Got {num_folds} folds for {len(names)} pairs in {num_groups} groups of equal texts, equal pictures and "
            f"copies, at most {largest} of one class; {_allowed_folds(most)}."
        )
    if smallest < num_folds:
        logger.warning("The rarest class has %d rows: some of the %d folds judge none of it.", smallest, num_folds)
    _, first, members = np.unique(numbers, return_index=True, return_inverse=True)
    dealer = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # said above
        # A group is named by its first row here: the numbers it came with depend on the rows' order.
        parts = list(dealer.split(names, classes, groups=first[members]))
    if not all(len(val) for _, val in parts):
        raise InputError(f"One of {num_folds} folds of {num_groups} groups would be empty; ask for fewer folds.")
    splits = (
        Split(tuple(names[train].tolist()), tuple(names[val].tolist()), seed=seed, val_ratio=1 / num_folds)
        for train, val in parts
    )
    return tuple(with_copies(split, guids, groups) for split in splits)


def hold_out(
    fold: Split, guids: Sequence[str], labels: Sequence[int], groups: Sequence[int], *, val_ratio: float, seed: int
) -> Split:
    """A fold for a model that is chosen by other rows than those that judge it.

    Args:
        fold: one of `make_folds`; its validation rows become the test part.
        guids, labels, groups: of the N rows, as given to `make_folds`.
        val_ratio: share of the other rows that is kept for validation (best epoch, early stopping); 0 keeps none.
        seed: of that draw.

    Raises:
        InputError: the other rows can't be split so.
    """
    others = set(fold.train)
    rows = [row for row in zip(guids, labels, groups, strict=True) if row[0] in others]
    inner = make_split(*zip(*rows, strict=True), val_ratio=val_ratio, seed=seed)
    return Split(inner.train, inner.val, seed=seed, val_ratio=val_ratio, test=fold.val)


def _allowed_folds(most: int) -> str:
    if most < 2:
        return "no folds can be made, since even 2 take 2 groups and 2 pairs of one class: give more pairs"
    return f"allowed are 2 to {most}"


def _class_sizes(classes: np.ndarray) -> tuple[int, int]:
    """Rows of the rarest and of the most frequent class among class numbers (N,)."""
    counts = np.unique(classes, return_counts=True)[1]
    return int(counts.min()), int(counts.max())
