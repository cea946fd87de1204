"""A batch on its way through the classifier: its inputs, what towers make of them, what it gives back.

What logits and labels mean goes by the task, which the configuration names as `problem_type`.

Shapes: B batch, L text tokens, H picture side, S sequence, D width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from .choices import NO_CLASS
from .configuration import SentimentConfig

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


def pad_texts(texts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token numbers of B texts -> input_ids and attention_mask, both (B, L) int64, padded on the right."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    real = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(real.shape, pad_token_id, dtype=np.int64)
    input_ids[real] = np.concatenate(texts)
    return torch.from_numpy(input_ids), torch.from_numpy(real.astype(np.int64))


def stack_pictures(
    pictures: Sequence[bytes | np.ndarray | None], image_size: int, *, pin_memory: bool = False
) -> dict[str, Tensor]:
    """The bytes of the pictures of B rows, several one behind the other -> pixel_values, and picture_mask with several.

    See `Inputs`. An absent picture is black, and counts as one.
    """
    shape = (3, image_size, image_size)
    counts = [1 if picture is None else len(picture) // math.prod(shape) for picture in pictures]
    most = max(counts)
    several = [most] if most > 1 else []
    pixels = torch.empty((len(pictures), *several, *shape), dtype=torch.uint8, pin_memory=pin_memory)
    for row, picture, count in zip(pixels.view(len(pictures), most, -1).numpy(), pictures, counts, strict=True):
        row[:count] = 0 if picture is None else np.frombuffer(picture, dtype=np.uint8).reshape(count, -1)
        row[count:] = 0
    if most == 1:
        return {"pixel_values": pixels}
    return {"pixel_values": pixels, "picture_mask": torch.arange(most) < torch.tensor(counts)[:, None]}


def is_labelled(labels: Tensor) -> Tensor:
    """Which of B rows have a label, (B,) bool."""
    return labels.isfinite().reshape(len(labels), -1).all(dim=1) if labels.is_floating_point() else labels != NO_CLASS


def drop_labels(labels: Tensor, kept: Tensor) -> Tensor:
    """The labels of B rows without those of the rows where `kept` (B,) is False."""
    nothing = float("nan") if labels.is_floating_point() else NO_CLASS
    return labels.where(kept.reshape(-1, *[1] * (labels.dim() - 1)), nothing)


def row_losses(
    config: SentimentConfig, logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None
) -> Tensor:
    """The loss of each row, (B,); 0 for one without a label.

    Cross-entropy of class ids (B,); the mean over the classes of binary cross-entropy of zeros and ones (B, C), a one
    counting `positive_weights` (C,) times; or of numbers (B,) the squared error in the unit of `config.label_std`.
    """
    logits, known = logits.float(), is_labelled(labels)
    if config.task == "single_label":
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=NO_CLASS)
    if config.task == "multi_label":
        losses = F.binary_cross_entropy_with_logits(
            logits, labels.nan_to_num(), pos_weight=positive_weights, reduction="none"
        ).mean(dim=-1)
    else:
        losses = (logits[:, 0] - (labels.nan_to_num() - config.label_mean) / config.label_std).square()
    return losses.where(known, 0.0)


def batch_loss(config: SentimentConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the rows that have a label, ()."""
    if config.task == "single_label":
        return F.cross_entropy(logits, labels)
    return row_losses(config, logits, labels).sum() / is_labelled(labels).sum()


def read_logits(config: SentimentConfig, logits: Tensor) -> Tensor:
    """Logits (B, C) -> calibrated probabilities (B, C); of a regression the numbers themselves, (B, 1)."""
    if config.task == "regression":
        return logits * config.label_std + config.label_mean
    return logits.sigmoid() if config.task == "multi_label" else (logits / config.temperature).softmax(dim=-1)
