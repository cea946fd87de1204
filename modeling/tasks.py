"""What logits mean, by the task that the configuration names as `problem_type`. Shapes: B batch, C classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .choices import NO_CLASS
from .configuration import SentimentConfig


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
