"""What one update minimises, and at which rates: the same for the Trainer and for the light loop of a sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_utils.prepare.columns import NO_LABEL_ID, WEIGHT, model_inputs
from modeling.batch import SentimentOutput, drop_labels, is_labelled, row_losses
from modeling.configuration import SentimentConfig
from training.flags.arguments import SentimentTrainingArguments

POWERS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}  # of --class_weights
TOWER_PREFIXES = ("text_tower.", "image_tower.")
# The constants of SplitMix64 (Steele, Lea and Flood 2014, figure 14) as signed 64-bit integers.
_GOLDEN_GAMMA = -0x61C8864680B583EB
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_SEED_STRIDE, _EPOCH_STRIDE = 1_000_000_007, 998_244_353  # primes: no (seed, epoch, row) falls on another's number


class ClassBalance(NamedTuple):
    """What training does about rare classes, (C,) float32 each.

    Attributes:
        weights: of a row's loss by its label; of a multi-label task those of a class's positive rows (`pos_weight`).
        offsets: added to the logits in training and not afterwards: tau log p for the share p of a class, so that the
            model itself learns log p(label | pair) - tau log p (Menon et al. 2021, "Long-tail learning via logit
            adjustment", equation 10).
    """

    weights: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> ClassBalance:
        """The same on a device."""
        return ClassBalance(self.weights.to(device), self.offsets.to(device))

    def sum_weights(self, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """What the rows with a label weigh together, (): each by its class, if it has one, and by its own weight."""
        known = is_labelled(labels)
        weights = known[known].float() if labels.is_floating_point() else self.weights[labels[known]]
        return (weights if row_weights is None else weights * row_weights[known]).sum()


def balance_classes(args: SentimentTrainingArguments, counts: Tensor) -> ClassBalance:
    """What the flags do about rare classes, given the training rows of each, (C,).

    A class has the weight N / (C n_c) to the power that --class_weights names, 0 without rows; for its offset a class
    without rows counts as if it had one.
    """
    counts = counts.float()
    balanced, power = counts.sum() / (len(counts) * counts.clamp(min=1)), POWERS[args.class_weights]
    shares = counts.clamp(min=1) / counts.sum().clamp(min=1)
    return ClassBalance(torch.where(counts > 0, balanced**power, 0.0), args.logit_adjustment * shares.log())


def balance_labels(args: SentimentTrainingArguments, labels: Tensor, num_classes: int) -> ClassBalance:
    """`balance_classes` of the labels of all N training rows.

    Of several labels a row, n_c positive rows of a class have the weight ((N - n_c) / n_c) to the power, 1 without any.
    """
    if not labels.is_floating_point():
        return balance_classes(args, torch.bincount(labels, minlength=num_classes))
    counts = labels.reshape(len(labels), -1).sum(dim=0)  # of numbers no count; nothing weighs them
    odds = torch.where(counts > 0, (len(labels) - counts).clamp(min=1) / counts.clamp(min=1), 1.0)
    return ClassBalance(odds ** POWERS[args.class_weights], torch.zeros(num_classes))


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    config: SentimentConfig,
    balance: ClassBalance,
    label_smoothing: float,
    weight_sum: Tensor,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Weighted loss of a micro batch, as its share of the global batch's weighted mean.

    The sum over all micro batches and ranks of one update is the weighted mean over the global batch, whatever the
    number of accumulation steps or ranks; a mean per micro batch would weigh the same row differently in each.

    Args:
        logits: (B, C).
        labels: as of `modeling.batch.row_losses`, which says the loss of each task.
        config: of the model.
        balance: weights of the rows, or of positive labels, and offsets of the logits.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7), or over yes and
            no of each label.
        weight_sum: () sum of the rows' weights over the global batch.
        row_weights: (B,) further weights of the rows.
    """
    if config.task == "single_label":
        loss = F.cross_entropy(
            logits.float() + balance.offsets,
            labels,
            weight=balance.weights,
            label_smoothing=label_smoothing,
            reduction="sum" if row_weights is None else "none",
            ignore_index=NO_LABEL_ID,
        )
    else:
        loss = row_losses(config, logits, labels + label_smoothing * (0.5 - labels), balance.weights)
    if row_weights is not None:  # all of a batch may be 0
        loss, weight_sum = loss * row_weights, weight_sum.clamp(min=torch.finfo().tiny)
    return loss.sum() / weight_sum


def drop_modalities(
    row_index: Tensor, text_present: Tensor, image_present: Tensor, *, rate: float, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """New presence masks (B,): a share `rate` of rows loses its text, another share its picture, none loses both.

    A row that has only one modality keeps it. Seed, epoch and row alone decide: randomness drawn from a generator would
    differ between ranks, accumulation steps and resumed runs.
    """
    x = (row_index.long() + (seed * _SEED_STRIDE + epoch * _EPOCH_STRIDE) % (1 << 62)) * _GOLDEN_GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    x = x ^ _shift_right(x, 31)
    draw = _shift_right(x, 40).float() / (1 << 24)  # in [0, 1)
    both = text_present & image_present
    return text_present & ~(both & (draw < rate)), image_present & ~(both & (draw >= 1 - rate))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64: the sign bit is data here."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def training_loss(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    config: SentimentConfig,
    args: SentimentTrainingArguments,
    epoch: int,
    has_both: bool,
    balance: ClassBalance,
    weight_sum: Tensor,
) -> tuple[Tensor, SentimentOutput]:
    """The batch's share of an update's loss (see `classification_loss`), with modality dropout and unimodal losses.

    A row that lacks a modality has no unimodal loss of it.

    Args:
        model: a `SentimentClassifier`, wrapped or not, in training mode.
        config: the model's.
        batch: its inputs, with labels, row_index (B,) and, where rows have weights of their own, weight (B,).
        args: rates, weights and the seed.
        epoch: from 0; rows lose other modalities in each.
        has_both: whether the model reads both modalities: one that reads a single one is never without it.
        balance: what is done about rare classes, on the batch's device.
        weight_sum: () sum of the rows' weights over the update.
    """
    inputs, labels, row_index = model_inputs(batch), batch["labels"], batch["row_index"]
    inputs["text_present"], inputs["image_present"] = drop_modalities(
        row_index,
        inputs["text_present"],
        inputs["image_present"],
        rate=args.modality_dropout if has_both else 0.0,
        seed=args.seed,
        epoch=epoch,
    )
    loss_of = partial(
        classification_loss,
        config=config,
        balance=balance,
        label_smoothing=args.label_smoothing_factor,
        weight_sum=weight_sum,
        row_weights=batch.get(WEIGHT),
    )
    if not (has_both and args.unimodal_loss_weight):
        outputs = model(**inputs)
        return loss_of(outputs.logits, labels), outputs
    outputs = model(**inputs, single_modalities=True)
    text_labels, image_labels = (drop_labels(labels, inputs[f"{kind}_present"]) for kind in ("text", "image"))
    unimodal = loss_of(outputs.text_logits, text_labels) + loss_of(outputs.image_logits, image_labels)
    return loss_of(outputs.logits, labels) + args.unimodal_loss_weight * unimodal, outputs


def group_parameters(
    model: nn.Module, *, decayed: Collection[str], args: SentimentTrainingArguments
) -> list[dict[str, Any]]:
    """The optimizer's groups of all that is trained: towers and the rest, with weight decay (`decayed`) and without."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_tower = name.removeprefix("module.").startswith(TOWER_PREFIXES)
            groups[in_tower, name in decayed].append(parameter)
    return [
        {
            "params": parameters,
            "lr": args.learning_rate if in_tower else args.head_learning_rate,
            "weight_decay": args.weight_decay if decay else 0.0,
        }
        for (in_tower, decay), parameters in groups.items()
    ]
