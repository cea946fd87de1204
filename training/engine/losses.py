"""The training loss, normalised over the whole global batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_utils.prepare.columns import NO_LABEL_ID
from training.flags.arguments import SentimentTrainingArguments


@dataclass(frozen=True)
class ClassBalance:
    """What training does about rare classes, (C,) float32 each.

    Attributes:
        weights: of a row's loss by its label.
        offsets: added to the logits in training and not afterwards: tau log p for the share p of a class, so that the
            model itself learns log p(label | pair) - tau log p (Menon et al. 2021, "Long-tail learning via logit
            adjustment", equation 10).
    """

    weights: Tensor
    offsets: Tensor

    @classmethod
    def from_counts(cls, counts: Tensor, *, class_weights: str, logit_adjustment: float) -> ClassBalance:
        """
        Args:
            counts: (C,) training rows of each class.
            class_weights: none, sqrt or balanced: weights (N / (C n_c)) to the power 0, 1/2 or 1; 0 for a class without
                rows.
            logit_adjustment: tau >= 0; a class without rows counts as if it had one.
        """
        counts = counts.float()
        balanced = counts.sum() / (len(counts) * counts.clamp(min=1))
        power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[class_weights]
        shares = counts.clamp(min=1) / counts.sum().clamp(min=1)
        return cls(torch.where(counts > 0, balanced**power, 0.0), logit_adjustment * shares.log())

    @classmethod
    def none(cls, num_classes: int) -> ClassBalance:
        """All classes alike."""
        return cls(torch.ones(num_classes), torch.zeros(num_classes))

    def to(self, device: torch.device) -> ClassBalance:
        """The same on a device."""
        return ClassBalance(self.weights.to(device), self.offsets.to(device))


def balance_classes(args: SentimentTrainingArguments, counts: Tensor) -> ClassBalance:
    """What the flags do about rare classes, given the training rows of each, (C,)."""
    return ClassBalance.from_counts(counts, class_weights=args.class_weights, logit_adjustment=args.logit_adjustment)


def classification_loss(
    logits: Tensor, labels: Tensor, *, balance: ClassBalance, label_smoothing: float, weight_sum: Tensor
) -> Tensor:
    """Weighted cross-entropy of a micro batch, as its share of the global batch's weighted mean.

    The sum over all micro batches and ranks of one update is the weighted mean over the global batch, whatever the
    number of accumulation steps or ranks; a mean per micro batch would weigh the same row differently in each.

    Args:
        logits: (B, C).
        labels: (B,) class ids.
        balance: weights of the rows and offsets of the logits.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7).
        weight_sum: () sum of the rows' weights over the global batch.
    """
    loss = F.cross_entropy(
        logits.float() + balance.offsets,
        labels,
        weight=balance.weights,
        label_smoothing=label_smoothing,
        reduction="sum",
        ignore_index=NO_LABEL_ID,
    )
    return loss / weight_sum
