"""What the classifier gives back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


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
