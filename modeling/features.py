"""What a tower hands to a fusion head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """One modality of a batch. B batch, S sequence (text tokens or image patches, the vector first), D width.

    Attributes:
        vector: (B, D) the modality as one vector.
        tokens: (B, S, D) the same vector followed by the tower's tokens; None where the head uses vectors only.
        mask: (B, S) bool, True where a token is real; None where tokens is None.
    """

    vector: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None

    def expand(self, batch_size: int) -> Features:
        """The features of one row (B = 1) repeated for `batch_size` rows, without a copy."""
        parts = (self.vector, self.tokens, self.mask)
        return Features(*(None if part is None else part.expand(batch_size, *part.shape[1:]) for part in parts))

    def masked(self, present: Tensor, missing: Tensor) -> Features:
        """Put the learned vector `missing` (D,) in every place of the rows where `present` (B,) is False."""
        missing = missing.to(self.vector.dtype)
        vector = torch.where(present[:, None], self.vector, missing)
        if self.tokens is None:
            return Features(vector)
        return Features(vector, torch.where(present[:, None, None], self.tokens, missing), self.mask)
