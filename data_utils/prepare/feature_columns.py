"""What a frozen tower gave for each row, as a column of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class FeatureColumn:
    """One kind of features of a data set.

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
