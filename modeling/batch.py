"""A batch on its way through the classifier: its inputs, what towers make of them, what it gives back.

Shapes: B batch, L text tokens, H picture side, S sequence, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

# What the classifier's forward takes. Where a tower is frozen and ran before, its output stands for its inputs.
#   input_ids, attention_mask: (B, L) int64, padded on the right. Beside text_vector only a head that reads text tokens
#       needs them.
#   pixel_values: (B, 3, H, H) uint8, as decoded; not needed beside image_vector or image_hidden. Where a row has
#       several pictures, (B, K, 3, H, H), and picture_mask (B, K) bool, True at the real ones, one at least per row.
#   text_present, image_present: (B,) bool; False puts the learned missing-modality vector in its place.
#   text_vector, image_vector: (B, D) a tower's vector.
#   text_tokens, image_tokens: (B, S, D) its tokens, where the head reads them.
#   text_hidden, image_hidden: (B, S, D) the hidden states behind frozen blocks, where only the last ones train.
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Features:
    """One modality of a batch.

    Attributes:
        vector: (B, D) the modality as one vector.
        tokens: (B, S, D) the same vector followed by the tower's text tokens or image patches; None where the head
            uses vectors only.
        mask: (B, S) bool, True where a token is real; None where tokens is None.
        has_several: whether rows have several pictures, and so other numbers of real tokens.
    """

    vector: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    has_several: bool = False

    def expand(self, batch_size: int) -> Features:
        """The features of one row (B = 1) repeated for `batch_size` rows, without a copy."""
        tokens = None if self.tokens is None else self.tokens.expand(batch_size, -1, -1)
        mask = None if self.mask is None else self.mask.expand(batch_size, -1)
        return Features(self.vector.expand(batch_size, -1), tokens, mask, self.has_several)


@dataclass
class SentimentOutput(ModelOutput):
    """What the model says of B rows.

    Attributes:
        loss: () or None.
        logits: (B, C).
        text_logits, image_logits: (B, C) for the text alone and the picture alone, where they were asked for.
        text_embeds, image_embeds: (B, D) before fusion, None for an unused tower.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_logits: Tensor | None = None
    image_logits: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
