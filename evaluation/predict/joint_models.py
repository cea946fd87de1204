"""Models that are asked together, so that a frozen tower which they share passes once for all of them.

The models of a cross-validated run differ in their heads alone where their towers were frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from evaluation.predict.inference import Batch
from modeling.batch import Features, Inputs
from modeling.classifier import SentimentClassifier

MAX_BYTES = 2**31  # of the weights of models that are asked together
# What each model's head reads of one modality; None where it reads none of it.
FeaturesOfEach = Sequence[Features | None]


class JointModels(nn.ModuleList):
    """One or more classifiers of the same inputs. Shapes: B batch, L text tokens, H picture side, M models, C classes.

    Features and answers are, bit by bit, those that each model gives alone.
    """

    def __init__(self, models: Iterable[SentimentClassifier] = ()) -> None:
        super().__init__(models)
        self.eval()  # they are never trained here, and an inference leaves a model in the mode that it had

    def __iter__(self) -> Iterator[SentimentClassifier]:
        return cast(Iterator[SentimentClassifier], super().__iter__())

    def encode(self, kind: str, batch: Batch) -> FeaturesOfEach:
        """Each model's features of the "text" or "image" of B rows, with one pass of each tower."""
        towers = [model.towers().get(kind) for model in self]
        owners = {tower: model for tower, model in zip(towers, self, strict=True) if tower is not None}
        passes = {tower: owner.run_tower(kind, cast(Inputs, batch)) for tower, owner in owners.items()}
        return [
            None if tower is None else model.align(kind, *passes[tower], cast(Inputs, batch))
            for tower, model in zip(towers, self, strict=True)
        ]

    def drop(self, kind: str, features: FeaturesOfEach, present: Tensor) -> FeaturesOfEach:
        """Each model's vector of a missing text or image in the rows where `present` (B,) is False."""
        return [model.drop(kind, each, present) for each, model in zip(features, self, strict=True)]

    def probabilities(self, texts: FeaturesOfEach, images: FeaturesOfEach) -> Tensor:
        """Features of B rows -> calibrated probabilities (B, M, C) in float32."""
        triples = zip(self, texts, images, strict=True)
        return torch.stack([model.probabilities(model.fuse(text, image)) for model, text, image in triples], dim=1)


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
    scales = [[each.config.image_mean, each.config.image_std] for each in (model, first)]
    settings = {"text_tower": ("text_tower", True), "image_tower": ("vision_tower", scales[0] == scales[1])}
    shared = False
    for name, (setting, has_same_inputs) in settings.items():
        own, other = getattr(model, name), getattr(first, name)
        if own is None or other is None or not (own.is_frozen and other.is_frozen and has_same_inputs):
            continue
        weights = other.state_dict()
        if getattr(model.config, setting) == getattr(first.config, setting) and all(
            torch.equal(value, weights[key].to(value.device)) for key, value in own.state_dict().items()
        ):
            setattr(model, name, other)
            shared = True
    return shared
