"""What one update minimises, and at which rates: the same for the Trainer and for the light loop of a sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from data_utils.prepare.columns import NO_LABEL_ID
from modeling.batch import SentimentOutput
from training.engine.losses import ClassBalance, classification_loss
from training.engine.modality_dropout import drop_modalities
from training.flags.arguments import SentimentTrainingArguments

TOWER_PREFIXES = ("text_tower.", "image_tower.")


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


def training_loss(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    args: SentimentTrainingArguments,
    epoch: int,
    modality_dropout: float,
    unimodal_loss_weight: float,
    balance: ClassBalance,
    weight_sum: Tensor,
) -> tuple[Tensor, SentimentOutput]:
    """The batch's share of an update's loss (see `classification_loss`), with modality dropout and unimodal losses.

    Args:
        model: a `SentimentClassifier`, wrapped or not, in training mode.
        batch: its inputs, with labels (B,) and row_index (B,).
        args: seed and label smoothing.
        epoch: from 0; rows lose other modalities in each.
        modality_dropout: share of rows that lose their text, and again of rows that lose their picture.
        unimodal_loss_weight: of the losses of the text alone and of the picture alone, beside that of both. A row that
            lacks a modality has no loss of it.
        balance: what is done about rare classes, on the batch's device.
        weight_sum: () sum of the rows' weights over the update.
    """
    inputs = dict(batch)
    row_index, labels = inputs.pop("row_index"), inputs.pop("labels")
    inputs["text_present"], inputs["image_present"] = drop_modalities(
        row_index,
        inputs["text_present"],
        inputs["image_present"],
        rate=modality_dropout,
        seed=args.seed,
        epoch=epoch,
    )
    loss_of = partial(
        classification_loss, balance=balance, label_smoothing=args.label_smoothing_factor, weight_sum=weight_sum
    )
    if not unimodal_loss_weight:
        outputs = model(**inputs)
        return loss_of(outputs.logits, labels), outputs
    outputs = model(**inputs, single_modalities=True)
    text_labels, image_labels = (labels.where(inputs[f"{kind}_present"], NO_LABEL_ID) for kind in ("text", "image"))
    unimodal = loss_of(outputs.text_logits, text_labels) + loss_of(outputs.image_logits, image_labels)
    return loss_of(outputs.logits, labels) + unimodal_loss_weight * unimodal, outputs
