"""Models that are asked together: a frozen tower which they share passes once, and their answers are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from statistics import fmean
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .batch import Features, Inputs, SentimentOutput, batch_loss
from .choices import DEFAULT_THRESHOLD
from .classifier import SentimentClassifier
from .configuration import SentimentConfig
from .towers import Tower

OWN = ("temperature", "label_mean", "label_std")
# What each model's head reads of one modality; None where it reads none of it.
FeaturesOfEach = Sequence[Features | None]
PassOfEach = Sequence[tuple[Tensor, Tensor] | None]  # of its tower, see `SentimentClassifier.run_tower`


class JointModels(nn.ModuleList):
    """One or more classifiers of the same inputs. Shapes: B batch, L text tokens, H picture side, M models, C classes.

    Features and answers are, bit by bit, those that each model gives alone.
    """

    def __init__(self, models: Iterable[SentimentClassifier] = ()) -> None:
        super().__init__(models)
        self.eval()  # they are never trained here, and an inference leaves a model in the mode that it had

    def __iter__(self) -> Iterator[SentimentClassifier]:
        return cast(Iterator[SentimentClassifier], super().__iter__())

    def encode(self, kind: str, batch: Inputs) -> FeaturesOfEach:
        """Each model's features of the "text" or "image" of B rows, with one pass of each tower."""
        return self.align(kind, self.run_towers(kind, batch), batch)

    def run_towers(self, kind: str, batch: Inputs) -> PassOfEach:
        """What each model's tower gives of the "text" or "image" of B rows, with one pass of each."""
        towers = [model.towers().get(kind) for model in self]
        owners = {tower: model for tower, model in zip(towers, self, strict=True) if tower is not None}
        passes = {tower: owner.run_tower(kind, batch) for tower, owner in owners.items()}
        return [None if tower is None else passes[tower] for tower in towers]

    def align(self, kind: str, passes: PassOfEach, batch: Inputs) -> FeaturesOfEach:
        """Each model's features of what `run_towers` gave."""
        pairs = zip(self, passes, strict=True)
        return [None if each is None else model.align(kind, *each, batch) for model, each in pairs]

    def drop(self, kind: str, features: FeaturesOfEach, present: Tensor) -> FeaturesOfEach:
        """Each model's vector of a missing text or image in the rows where `present` (B,) is False."""
        return [model.drop(kind, each, present) for each, model in zip(features, self, strict=True)]

    def probabilities(self, texts: FeaturesOfEach, images: FeaturesOfEach) -> Tensor:
        """Features of B rows -> calibrated probabilities (B, M, C) in float32."""
        triples = zip(self, texts, images, strict=True)
        return torch.stack([model.probabilities(model.fuse(text, image)) for model, text, image in triples], dim=1)


@strict
class EnsembleConfig(SentimentConfig):
    """Of models that differ in their weights, and in the settings that stand in `members`.

    Attributes:
        members: `OWN` of each model.
        shared: "text" and "image", where the models have one tower together.
    """

    model_type = "multimodal-sentiment-ensemble"

    members: list[dict[str, float]] | None = None
    shared: list[str] | None = None

    @classmethod
    def of(cls, configs: Sequence[SentimentConfig], shared: Sequence[str]) -> EnsembleConfig:
        """That of models with these configurations, in which nothing but `OWN` and the thresholds differs."""
        settings = {name: value for name, value in configs[0].to_dict().items() if name != "model_type"}
        settings |= {"temperature": 1.0, "label_mean": 0.0, "label_std": 1.0, "shared": [*shared]}
        if configs[0].task == "multi_label":
            own = [config.thresholds or [DEFAULT_THRESHOLD] * config.num_labels for config in configs]
            settings["thresholds"] = [fmean(values) for values in zip(*own, strict=True)]
        members = [{name: getattr(config, name) for name in OWN} for config in configs]
        return cls.from_dict(settings | {"members": members})


class SentimentEnsemble(SentimentClassifier):
    """Answers with the mean of its models' calibrated probabilities, or of their numbers.

    What is read off its logits is that mean, so they are none of the models' logits.
    """

    config_class = EnsembleConfig
    config: EnsembleConfig

    @classmethod
    def of(cls, models: Sequence[SentimentClassifier], shared: Sequence[str]) -> SentimentEnsemble:
        """Of loaded models, whose towers named in `shared` are equal."""
        with torch.device("meta"):
            ensemble = cls(EnsembleConfig.of([model.config for model in models], shared))
        ensemble._join(models)
        return ensemble.eval()

    def _build(self, config: EnsembleConfig) -> None:
        configs = [copy(config) for _ in config.members or ()]
        for each, own in zip(configs, config.members or (), strict=True):
            for name in OWN:
                setattr(each, name, own[name])
        self._join([SentimentClassifier(each) for each in configs])

    def _join(self, models: Sequence[SentimentClassifier]) -> None:
        self.members = JointModels(models)
        for kind in self.config.shared or ():
            for model in models[1:]:  # not as a part of theirs: its weights are saved once, and moved once
                delattr(model, f"{kind}_tower")
                model.__dict__[f"{kind}_tower"] = models[0].towers()[kind]

    def towers(self) -> dict[str, Tower]:
        """None but those of its models."""
        return {}

    def forward(self, *, labels: Tensor | None = None, **inputs: Any) -> SentimentOutput:
        """The mean as logits, and its loss where labels are given; see `SentimentClassifier.forward`."""
        texts, images = (self.members.encode(kind, inputs) for kind in ("text", "image"))
        mean = self.members.probabilities(texts, images).mean(dim=1)
        if self.config.task == "single_label":
            mean = mean.log()
        elif self.config.task == "multi_label":
            mean = mean.logit()
        return SentimentOutput(loss=None if labels is None else batch_loss(self.config, mean, labels), logits=mean)
