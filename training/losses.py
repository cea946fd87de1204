"""The training loss, normalised over the whole global batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from data_utils.pairs import NO_LABEL_ID

CLASS_WEIGHTS = ("none", "sqrt", "balanced")


def compute_class_weights(kind: str, labels: Sequence[int], num_classes: int) -> Tensor:
    """Weight per class, (C,) float32: (N / (C n_c)) to the power 0, 1/2 or 1; 0 for a class without rows.

    Args:
        kind: none, sqrt or balanced.
        labels: class ids of the N training rows.
    """
    return weigh_counts(kind, torch.bincount(torch.as_tensor(labels), minlength=num_classes))


def weigh_counts(kind: str, counts: Tensor) -> Tensor:
    """`compute_class_weights` where the rows per class, (C,), are known."""
    counts = counts.float()
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    balanced = counts.sum() / (len(counts) * counts.clamp(min=1))
    return torch.where(counts > 0, balanced**power, 0.0)


def classification_loss(
    logits: Tensor, labels: Tensor, *, class_weights: Tensor, label_smoothing: float, weight_sum: Tensor
) -> Tensor:
    """Weighted cross-entropy of a micro batch, as its share of the global batch's weighted mean.

    The sum over all micro batches and ranks of one update is the weighted mean over the global batch, whatever the
    number of accumulation steps or ranks; a mean per micro batch would weigh the same row differently in each.

    Args:
        logits: (B, C).
        labels: (B,) class ids.
        class_weights: (C,).
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7).
        weight_sum: () sum of the rows' weights over the global batch.
    """
    loss = F.cross_entropy(
        logits.float(),
        labels,
        weight=class_weights,
        label_smoothing=label_smoothing,
        reduction="sum",
        ignore_index=NO_LABEL_ID,
    )
    return loss / weight_sum
