"""How prepared rows and batches call what they hold: the one place where these names are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

# By the kind of the tower: the keys of a batch that it reads, the column they are made of, and whether a row has it.
TOWER_INPUTS = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values",)}
SOURCE = {"text": "input_ids", "image": "image"}
PRESENT = {"text": "text_present", "image": "image_present"}
# Keys of a batch that the model doesn't need for an answer.
LABELS, ROW_INDEX = "labels", "row_index"
# Columns of a prepared data set that a model is trained and judged on.
MODEL_COLUMNS = ("guid", "label", *SOURCE.values(), *PRESENT.values())
NO_LABEL_ID = -100  # class number of a row without a label


def model_inputs(batch: Mapping[str, Value]) -> dict[str, Value]:
    """What of a batch the model's forward takes for an answer."""
    return {name: value for name, value in batch.items() if name not in (LABELS, ROW_INDEX)}
