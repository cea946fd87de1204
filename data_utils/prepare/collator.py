"""Rows to a batch; what frozen towers gave for a row, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import get_worker_info

from data_utils.prepare.batches import Columns
from data_utils.prepare.columns import LABELS, WEIGHT
from modeling.batch import pad_texts, stack_pictures
from modeling.errors import InputError

# Column of the rows -> key and type of the batch.
NUMBERS = {
    "text_present": ("text_present", torch.bool),
    "image_present": ("image_present", torch.bool),
    "row_index": ("row_index", torch.int64),
}


@dataclass(frozen=True)
class FeatureColumn:
    """One kind of features that a frozen tower gave for the rows of a data set.

    Attributes:
        name: of the column, of the batch's key and of the forward's argument: text or image, then vector (D,), tokens
            (S, D) or hidden (S, D), which are the tokens before the last blocks.
        width: D.
        dtype: of the stored numbers: float32 or bfloat16.
    """

    name: str
    width: int
    dtype: str = "float32"

    @property
    def is_vector(self) -> bool:
        """Whether a row is one vector, else it is a sequence of vectors."""
        return self.name.endswith("_vector")

    def encode(self, features: torch.Tensor) -> bytes:
        """The features of one row, (D,) or (S, D), on any device and in any type."""
        stored = features.to(device="cpu", dtype=getattr(torch, self.dtype)).contiguous()
        return stored.view(torch.uint8).numpy().tobytes()

    def stack(self, rows: Sequence[bytes | np.ndarray]) -> torch.Tensor:
        """The bytes of B rows -> (B, D), or (B, S, D) with zeros behind the shorter sequences."""
        lengths = [len(row) for row in rows]
        stacked = np.zeros((len(rows), max(lengths)), dtype=np.uint8)
        for line, row, length in zip(stacked, rows, lengths, strict=True):
            line[:length] = np.frombuffer(row, dtype=np.uint8)
        features = torch.from_numpy(stacked).view(getattr(torch, self.dtype))
        return features if self.is_vector else features.unflatten(1, (-1, self.width))


def refuse_several_pictures(dataset: Dataset, image_size: int, remedy: str) -> None:
    """`InputError`, with what to do, where a stored row of a prepared data set has more than one picture."""
    if "image" in dataset.column_names:
        largest = pc.max(pc.binary_length(dataset.data.column("image"))).as_py()
        if largest is not None and largest > 3 * image_size**2:
            most = largest // (3 * image_size**2)
            raise InputError(f"Rows have up to {most} pictures, and one is allowed {remedy}.")


@dataclass(frozen=True)
class PairCollator:
    """Stack rows into the tensors that the forward takes by name.

    Attributes:
        pad_token_id: fills up shorter texts on the right.
        image_size: side of the pictures in pixels.
        features: columns of what frozen towers gave for the rows.
        pin: lay pictures into pinned memory, from which an accelerator copies by itself; torch gives it out again no
            sooner than such a copy has ended. Not in worker processes, out of whose memory the loader copies.
    """

    pad_token_id: int
    image_size: int
    features: tuple[FeatureColumn, ...] = ()
    pin: bool = False

    def __call__(self, rows: Columns | Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack B rows; texts are padded to the longest of them (L), an absent picture is black.

        Args:
            rows: columns, as `BatchReader` gives them, or a list of dicts.

        Returns:
            input_ids (B, L) int64, attention_mask (B, L) int64, pixel_values (B, 3, H, W) uint8 (and where a
            row has several pictures (B, K, 3, H, W), and picture_mask (B, K) bool, of which the first is True),
            text_present (B,) bool, image_present (B,) bool, labels (B,) int64, or (B, C) or (B,) float32 (see
            `columns`), row_index (B,) int64, weight (B,) float32 where rows have one; each of the features by its
            name. Rows without input_ids or image, in place of which they have features, give none.
        """
        columns = rows if isinstance(rows, dict) else {name: [row[name] for row in rows] for name in rows[0]}
        batch = {key: torch.as_tensor(columns[name], dtype=dtype) for name, (key, dtype) in NUMBERS.items()}
        labels = torch.as_tensor(np.asarray(columns["label"]))
        batch[LABELS] = labels.float() if labels.is_floating_point() else labels
        if WEIGHT in columns:
            batch[WEIGHT] = torch.as_tensor(columns[WEIGHT], dtype=torch.float32)
        if "input_ids" in columns:
            batch["input_ids"], batch["attention_mask"] = pad_texts(columns["input_ids"], self.pad_token_id)
        if "image" in columns:
            pin = self.pin and get_worker_info() is None
            batch |= stack_pictures(columns["image"], self.image_size, pin_memory=pin)
        return batch | {column.name: column.stack(columns[column.name]) for column in self.features}
