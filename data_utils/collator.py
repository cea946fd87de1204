"""Rows to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class PairCollator:
    """Stack rows into the tensors that the forward takes by name.

    Attributes:
        pad_token_id: fills up shorter texts on the right.
        image_size: side of the pictures in pixels.
    """

    pad_token_id: int
    image_size: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack B rows; texts are padded to the longest of them (L), an absent picture is black.

        Returns:
            input_ids (B, L) int64, attention_mask (B, L) int64, pixel_values (B, 3, H, W) uint8,
            text_present (B,) bool, image_present (B,) bool, labels (B,) int64, row_index (B,) int64.
        """
        length = max(len(row["input_ids"]) for row in rows)
        input_ids = np.full((len(rows), length), self.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros((len(rows), length), dtype=np.int64)
        pixels = np.zeros((len(rows), 3, self.image_size, self.image_size), dtype=np.uint8)
        for number, row in enumerate(rows):
            tokens = row["input_ids"]
            input_ids[number, : len(tokens)] = tokens
            attention_mask[number, : len(tokens)] = 1
            if row["image"] is not None:
                pixels[number] = np.frombuffer(row["image"], dtype=np.uint8).reshape(pixels.shape[1:])
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "pixel_values": torch.from_numpy(pixels),
            "text_present": torch.tensor([row["text_present"] for row in rows], dtype=torch.bool),
            "image_present": torch.tensor([row["image_present"] for row in rows], dtype=torch.bool),
            "labels": torch.tensor([row["label"] for row in rows], dtype=torch.int64),
            "row_index": torch.tensor([row["row_index"] for row in rows], dtype=torch.int64),
        }
