"""Labels as a text and as a value, by the task. Legend: N rows, C classes.

| task | text | value |
| --- | --- | --- |
| single_label | the class's name | its number, -100 for none |
| multi_label | the names with | between them; a | alone where no class applies | C zeros and ones, all nan for none |
| regression | the number | the number, nan for none |
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.choices import NO_CLASS

BETWEEN = "|"
UNLABELLED = "null"
VALUE = "value"  # what a regression's one class is called
_LARGEST = 3.4e38  # of float32


def find_label(tag: str, labels: Sequence[str]) -> str | None:
    """The allowed label that a tag says, in whatever way Unicode writes it; None where it is none of them."""
    if tag in labels:
        return tag
    name = unicodedata.normalize("NFC", tag)
    return next((label for label in labels if unicodedata.normalize("NFC", label) == name), None)


def split_label(tag: str, labels: Sequence[str], task: str) -> list[str]:
    """What a tag says: a name or a number, or any number of names; those that are allowed in their own spelling."""
    if task == "regression":
        return [tag]
    parts = filter(None, map(str.strip, tag.split(BETWEEN))) if task == "multi_label" else [tag]
    return [find_label(part, labels) or part for part in parts]


def is_allowed(name: str, labels: Sequence[str], task: str) -> bool:
    """Whether a name of `split_label` is one of the labels, or a number that is finite as float32."""
    if task != "regression":
        return name in labels
    try:
        return "_" not in name and abs(float(name)) <= _LARGEST  # nan isn't
    except ValueError:
        return False


def encode_labels(texts: Sequence[str | None], labels: Sequence[str], task: str) -> NDArray[Any]:
    """Texts of N rows, allowed or None, to values: (N,) int64, (N, C) float32, or (N,) float32."""
    if task == "regression":
        return np.array([math.nan if text is None else float(text) for text in texts], dtype=np.float32)
    numbers = {label: number for number, label in enumerate(labels)}
    if task == "single_label":
        return np.array([NO_CLASS if text is None else numbers[text] for text in texts], dtype=np.int64)
    values = np.zeros((len(texts), len(labels)), dtype=np.float32)
    for row, text in zip(values, texts, strict=True):
        row[:] = math.nan if text is None else 0
        row[[numbers[name] for name in split_label(text or "", labels, task)]] = 1
    return values


def name_labels(values: ArrayLike, labels: Sequence[str]) -> list[str]:
    """Values of N rows, or answers of their form, to texts; null for none."""
    rows = np.asarray(values)
    if rows.dtype.kind == "i":
        return [labels[number] if number >= 0 else UNLABELLED for number in rows.tolist()]
    if rows.ndim == 1:
        return [UNLABELLED if math.isnan(value) else str(value) for value in rows.astype(np.float32)]
    names = np.array(labels, dtype=object)
    return [UNLABELLED if math.isnan(row.sum()) else BETWEEN.join(names[row > 0]) or BETWEEN for row in rows]
