"""Counting the parameters of a classifier."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from modeling.classifier import SentimentClassifier


def parameter_table(model: SentimentClassifier) -> Mapping[str, int]:
    """Number of parameters by part: text, image (towers), fusion, head (classifier layers), total and trainable."""
    table = dict.fromkeys(("text", "image", "fusion", "head", "total", "trainable"), 0)
    for name, parameter in model.named_parameters():
        # Under ZeRO-3 a parameter is an empty shell that knows its whole size.
        size = getattr(parameter, "ds_numel", parameter.numel())
        table[_part_of(name)] += size
        table["total"] += size
        table["trainable"] += size * parameter.requires_grad
    return table


def count_matrix_weights(model: SentimentClassifier) -> int:
    """Weights of the towers' linear layers and convolutions: what a forward multiplies with, tables not counted."""
    layers = (module for tower in model.towers().values() for module in tower.modules())
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))


def _part_of(name: str) -> str:
    for prefix, part in (("text_tower.", "text"), ("image_tower.", "image"), ("fusion.classifier", "head")):
        if name.startswith(prefix):
            return part
    return "fusion"
