"""Groups so large that no split or fold can be fair: what ties their rows together, and what to do."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from data_utils.console.screen import printable
from data_utils.splits.split_file import Split
from modeling.errors import InputError

logger = logging.getLogger(__name__)
# Words by which programs write that there is nothing.
_PLACEHOLDERS = {"none", "nan", "null", "nil", "n/a", "na", "#n/a", "<na>", "undefined", "-", "[deleted]", "[removed]"}
# Shares of the rows in one group: what is refused, and what is told.
_MOST, _MANY = 0.5, 0.2
_SHOWN = 60


def check_largest_group(dataset: Dataset, groups: Sequence[int]) -> None:
    """Refuse to draw a validation part where one group, which must not be parted, holds over half of the rows.

    Args:
        dataset: N rows of `load_pairs`.
        groups: their group numbers (`data_utils.splits.splits.group_ids`).

    Raises:
        InputError: names what ties the rows together, and the remedy.
    """
    rows = _find_largest(groups)
    if len(rows) == 1 or len(rows) <= _MANY * len(groups):
        return
    fault = f"{len(rows)} of {len(groups)} rows can't be parted for validation: {_describe(dataset, rows)}"
    if len(rows) > _MOST * len(groups):
        raise InputError(f"{fault} Or take a --split_file, or --val_ratio 0 to train on all.")
    logger.warning("%s", fault)


def check_fold_sizes(folds: Sequence[Split], dataset: Dataset, groups: Sequence[int]) -> None:
    """Refuse folds of which one judges over twice as many rows as another.

    Args:
        folds: with the judged rows as validation part.
        dataset: N rows of `load_pairs`.
        groups: their group numbers.

    Raises:
        InputError: says the sizes, what ties the rows of the largest group together, and the remedy.
    """
    sizes = sorted((len(fold.val) for fold in folds), reverse=True)
    if sizes[0] <= 2 * sizes[-1] + 2:  # small folds of small groups may differ by chance
        return
    rows = _find_largest(groups)
    raise InputError(
        f"The {len(folds)} folds would judge {', '.join(map(str, sizes))} rows, too unlike to be compared, since "
        f"{len(rows)} rows can't be parted: {_describe(dataset, rows)} Or ask for fewer folds."
    )


def _find_largest(groups: Sequence[int]) -> np.ndarray:
    """Numbers of the rows of the largest group."""
    numbers, counts = np.unique(np.asarray(groups), return_counts=True)
    return np.flatnonzero(np.asarray(groups) == numbers[counts.argmax()])


def _describe(dataset: Dataset, rows: np.ndarray) -> str:
    """What most rows of a group share, and what to do where it stands for nothing."""
    names = [name for name in ("guid", "text", "text_key", "image_key") if name in dataset.column_names]
    columns = dataset.select_columns(names).with_format(None).select(rows)[:]
    texts, pictures = (Counter(filter(None, columns[name])) for name in ("text_key", "image_key"))
    (text_key, num_texts), (image_key, num_pictures) = (
        next(iter(counts.most_common(1)), (None, 0)) for counts in (texts, pictures)
    )
    if max(num_texts, num_pictures) < len(rows) / 2:
        return "equal texts, equal pictures and copies tie them together. Take repeated pairs out of the list."
    if num_texts < num_pictures:
        guid = columns["guid"][columns["image_key"].index(image_key)]
        return (
            f"{num_pictures} of them have the picture of {guid!r}. If it stands for no picture, delete these files: a "
            "picture that is missing ties no rows together."
        )
    first = columns["text_key"].index(text_key)
    text = columns["text"][first] if "text" in columns else ""
    shown = f", {printable(repr(text), _SHOWN)}" if text else ""
    placeholder = ", a program's word for nothing" if text.casefold() in _PLACEHOLDERS else ""
    return (
        f"{num_texts} of them have the text of {columns['guid'][first]!r}{shown}{placeholder}. If it stands for no "
        "text, empty these files: a text that is missing ties no rows together."
    )
