"""How prepared rows and batches call what they hold: the one place where these names are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_utils.sources.label_forms import NO_CLASS

Value = TypeVar("Value")

# By the kind of the tower: the keys of a batch that it reads, the column they are made of, and whether a row has it.
TOWER_INPUTS = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values",)}
SOURCE = {"text": "input_ids", "image": "image"}
PRESENT = {"text": "text_present", "image": "image_present"}
# Keys of a batch that the model doesn't need for an answer.
LABELS, ROW_INDEX, WEIGHT = "labels", "row_index", "weight"
# Columns of a prepared data set that a model is trained and judged on. `weight` is there where rows have weights.
# `label` goes by the task: of single_label the class number, int64, -100 for none; of multi_label a list with a float32
# per class, 1 where it applies and 0 where not, all nan for none; of regression the number, float32, nan for none.
MODEL_COLUMNS = ("guid", "label", *SOURCE.values(), *PRESENT.values())
NO_LABEL_ID = NO_CLASS  # class number of a row without a label


def model_inputs(batch: Mapping[str, Value]) -> dict[str, Value]:
    """What of a batch the model's forward takes for an answer."""
    return {name: value for name, value in batch.items() if name not in (LABELS, ROW_INDEX, WEIGHT)}


def is_labelled(labels: ArrayLike) -> NDArray[np.bool_]:
    """Which of N rows have a label, (N,), by the values of their column `label`."""
    values = np.asarray(labels)
    return values != NO_LABEL_ID if values.dtype.kind == "i" else ~np.isnan(values.reshape(len(values), -1)).any(axis=1)
