"""Fusion heads: from the features of both modalities to logits.

Every head takes `Features` of text and image at one width D and returns logits (B, C). In each head the layers whose
name begins with `classifier` map what was fused to classes; all else is fusion (the parameter table counts them so).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch import Features
from .kernels import attend


def build_mlp(sizes: list[int], *, dropout: float) -> nn.Sequential:
    """Linear layers of the given sizes with GELU and dropout between them: (B, sizes[0]) -> (B, sizes[-1])."""
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(width_in, width_out), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class TransformerLayer(nn.Module):
    """Attention and feed-forward with post-normalisation (Vaswani et al. 2017, section 3.1).

    Unlike `nn.TransformerEncoderLayer` it takes its keys and values from any sequence, and has no separate inference
    path that reads parameters past their module's forward, which ZeRO-3 cannot gather.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = math.gcd(width, 8)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, S, D) attends to `context` (B, T, D), by default to itself; mask (B, T) bool is True at real tokens."""
        context = x if context is None else context
        query = self._split_heads(self.query(x))
        key, value = (self._split_heads(part) for part in self.key_value(context).chunk(2, dim=-1))
        mask = None if mask is None else mask[:, None, None, :]
        attended = attend(query, key, value, mask=mask, dropout=self.dropout.p if self.training else 0.0)
        attended = self.output(attended.transpose(1, 2).flatten(2))
        x = self.attention_norm(x + self.dropout(attended))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, heads, S, D / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FusionHead(nn.Module, ABC):
    """Base of the heads. `modeling.choices.FUSIONS` says which modalities each reads; the other one is None.

    Attributes:
        reads_tokens: of "text" and "image" those whose tokens it reads beside the vectors.
    """

    reads_tokens: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        """Layers for features of width D and C classes."""
        super().__init__()

    @abstractmethod
    def forward(self, text: Features, image: Features) -> Tensor:
        """Features of B rows -> logits (B, C)."""


class EarlyFusion(FusionHead):
    """Both vectors concatenated, then an MLP."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.classifier = build_mlp([2 * width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        return self.classifier(torch.cat([text.vector, image.vector], dim=-1))


class LateFusion(FusionHead):
    """A classifier per modality; the logits are averaged."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.classifier_text = build_mlp([width, width, num_classes], dropout=dropout)
        self.classifier_image = build_mlp([width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        return (self.classifier_text(text.vector) + self.classifier_image(image.vector)) / 2


class ClipMatchFusion(FusionHead):
    """How well both match: the unit vectors, their absolute difference, product and cosine, then an MLP."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.classifier = build_mlp([4 * width + 1, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        t = F.normalize(text.vector, dim=-1)  # (B, D)
        v = F.normalize(image.vector, dim=-1)  # (B, D)
        product = t * v
        # sqrt(D) brings the entries of unit vectors back to the order of 1, which the MLP's initial weights expect.
        scaled = torch.cat([t, v, (t - v).abs(), product], dim=-1) * math.sqrt(t.shape[-1])
        return self.classifier(torch.cat([scaled, product.sum(-1, keepdim=True)], dim=-1))


class PairTransformer(nn.Module):
    """Text and image vectors as a sequence of two through Transformer layers: (B, D), (B, D) -> (B, 2, D)."""

    def __init__(self, width: int, num_layers: int, *, dropout: float) -> None:
        super().__init__()
        self.modality = nn.Embedding(2, width)
        self.layers = nn.ModuleList(TransformerLayer(width, dropout=dropout) for _ in range(num_layers))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        x = torch.stack([text, image], dim=1)  # (B, 2, D)
        x = x + self.modality(torch.arange(2, device=x.device))
        for layer in self.layers:
            x = layer(x)
        return x


class AttnFusion(FusionHead):
    """Three Transformer layers over both vectors, then a gated residual from the text.

    fused + tanh(W [fused, text]) * text, LayerNorm, and a GELU MLP of two hidden layers.
    """

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.encoder = PairTransformer(width, 3, dropout=dropout)
        self.gate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.classifier = build_mlp([width, width, width // 2, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        fused = self.encoder(text.vector, image.vector).mean(dim=1)  # (B, D)
        gate = torch.tanh(self.gate(torch.cat([fused, text.vector], dim=-1)))
        return self.classifier(self.norm(fused + gate * text.vector))


class TransformerFusion(FusionHead):
    """Two Transformer layers over both vectors, then two linear layers (the simplified ViLBERT)."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.encoder = PairTransformer(width, 2, dropout=dropout)
        self.classifier = build_mlp([2 * width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        return self.classifier(self.encoder(text.vector, image.vector).flatten(1))


class CrossAttnFusion(FusionHead):
    """The text vector queries the picture (its vector and its patches), feed-forward, then an MLP."""

    reads_tokens = ("image",)

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.attention = TransformerLayer(width, dropout=dropout)
        self.classifier = build_mlp([width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        mask = image.mask if image.has_several else None  # without one, other kernels are faster
        fused = self.attention(text.vector[:, None], image.tokens, mask)  # (B, 1, D)
        return self.classifier(fused[:, 0])


class CoAttnLayer(nn.Module):
    """A pair of cross-attention blocks followed by a pair of self-attention blocks."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.text_cross, self.image_cross, self.text_self, self.image_self = (
            TransformerLayer(width, dropout=dropout) for _ in range(4)
        )

    def forward(self, pair: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens of the text (B, S, D) and the picture (B, T, D) with both masks -> the same."""
        t, v, text_mask, image_mask = pair
        t, v = self.text_cross(t, v, image_mask), self.image_cross(v, t, text_mask)
        return self.text_self(t, mask=text_mask), self.image_self(v, mask=image_mask), text_mask, image_mask


class CoAttnFusion(FusionHead):
    """Text tokens and image patches attend to each other in two layers (ViLBERT: Lu et al. 2019, 3.1)."""

    reads_tokens = ("text", "image")

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.layers = nn.Sequential(*(CoAttnLayer(width, dropout=dropout) for _ in range(2)))
        self.classifier = build_mlp([2 * width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        t, v, *_ = self.layers((text.tokens, image.tokens, text.mask, image.mask))
        return self.classifier(torch.cat([t[:, 0], v[:, 0]], dim=-1))


class TextOnly(FusionHead):
    """The text vector alone, then an MLP; no image tower is built."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(width, num_classes, dropout=dropout)
        self.classifier = build_mlp([width, width, num_classes], dropout=dropout)

    def forward(self, text: Features, image: Features) -> Tensor:
        return self.classifier(text.vector)


class ImageOnly(TextOnly):
    """The image vector alone, then an MLP; no text tower is built."""

    def forward(self, text: Features, image: Features) -> Tensor:
        return self.classifier(image.vector)


FUSION_HEADS: dict[str, type[FusionHead]] = {
    "early": EarlyFusion,
    "late": LateFusion,
    "clip_match": ClipMatchFusion,
    "attn": AttnFusion,
    "transformer": TransformerFusion,
    "cross_attn": CrossAttnFusion,
    "co_attn": CoAttnFusion,
    "text_only": TextOnly,
    "image_only": ImageOnly,
}
