"""Models that are asked together, so that a frozen tower which they share passes once for all of them.

The models of a cross-validated run differ in their heads alone where their towers were frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels

MAX_BYTES = 2**31  # of the weights of models that are asked together


def join_models(models: Iterable[SentimentClassifier], max_bytes: int = MAX_BYTES) -> Iterator[JointModels]:
    """Models in their order, those together that share a frozen tower with the first of them.

    Args:
        models: of the same inputs; each is taken when it is needed.
        max_bytes: of the weights of all that are given together, where these are several.
    """
    joint: list[SentimentClassifier] = []
    for model in models:
        is_shared = bool(joint) and _share_towers(model, joint[0])
        if joint and not (is_shared and sum(each.nbytes for each in _weights([*joint, model])) <= max_bytes):
            yield JointModels(joint)
            joint = []
        joint.append(model)
        if not any(tower.is_frozen for tower in model.towers().values()):  # before the next one takes memory
            yield JointModels(joint)
            joint = []
    if joint:
        yield JointModels(joint)


def _weights(models: Iterable[SentimentClassifier]) -> Iterator[Tensor]:
    return nn.ModuleList(models).parameters()


def _share_towers(model: SentimentClassifier, first: SentimentClassifier) -> bool:
    """Give a model the other's frozen towers in place of equal ones of its own; False where there is none."""
    kinds = find_equal_towers(model, first)
    for kind in kinds:
        setattr(model, f"{kind}_tower", first.towers()[kind])
    return bool(kinds)


def find_equal_towers(model: SentimentClassifier, first: SentimentClassifier) -> list[str]:
    """Of "text" and "image" those for which both models have the same frozen tower and give it the same inputs."""
    scales = [[each.config.image_mean, each.config.image_std] for each in (model, first)]
    settings = {"text": ("text_tower", True), "image": ("vision_tower", scales[0] == scales[1])}
    equal = []
    for kind, (setting, has_same_inputs) in settings.items():
        own, other = model.towers().get(kind), first.towers().get(kind)
        if own is None or other is None or not (own.is_frozen and other.is_frozen and has_same_inputs):
            continue
        weights = other.state_dict()
        if getattr(model.config, setting) == getattr(first.config, setting) and all(
            torch.equal(value, weights[key].to(value.device)) for key, value in own.state_dict().items()
        ):
            equal.append(kind)
    return equal
