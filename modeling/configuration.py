"""The configuration of a text + picture classifier, saved as config.json beside its weights."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .choices import ARCHITECTURES, FREEZE_CHOICES, FUSIONS, PICTURE_POOLINGS, check_width
from .errors import check_choice


@strict
class SentimentConfig(PreTrainedConfig):
    """What a `SentimentClassifier` is made of, and how its inputs are prepared.

    Attributes:
        architecture: the recipe by which the towers were chosen.
        fusion: the head.
        text_tower, vision_tower: settings of a `Tower`; None where the head has no use for it.
        align_dim: width that new linear layers map both towers to (a dual encoder composed of two encoders); None: the
            text tower's width, and only a tower of another width is mapped.
        picture_pooling: how the vectors of a row's pictures, where it has several, become one.
        fusion_dropout: dropout inside the head.
        freeze: which towers are kept as they were loaded.
        unfreeze_last: blocks at the end of the frozen towers (with none: of both) that are trained all the same.
        text_cleaning, max_length: how texts are cleaned, and cut (tokens).
        picture: fields of `PictureSettings`.
        image_mean, image_std: per channel, of pixels rescaled to [0, 1].
        temperature: by which logits are divided where probabilities are wanted (Guo et al. 2017), fitted on rows that
            the model did not see; training and its loss know nothing of it.
        thresholds: of a multi-label model the probability from which on each class is answered, fitted on validation
            rows; None: 0.5.
        label_mean, label_std: of the training labels of a regression, whose logits are in these units.
    """

    model_type = "multimodal-sentiment"
    keys_to_ignore_at_inference = ["text_embeds", "image_embeds"]  # noqa: RUF012 (transformers concatenates lists)

    architecture: str = "clip"
    fusion: str = "attn"
    text_tower: dict[str, Any] | None = None
    vision_tower: dict[str, Any] | None = None
    align_dim: int | None = None
    picture_pooling: str = "mean"
    fusion_dropout: float = 0.1
    freeze: str = "none"
    unfreeze_last: int | None = None
    initializer_range: float = 0.02
    text_cleaning: str = "report"
    max_length: int = 77
    picture: dict[str, Any] | None = None
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    temperature: float = 1.0
    thresholds: list[float] | None = None
    label_mean: float = 0.0
    label_std: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("picture_pooling", self.picture_pooling, PICTURE_POOLINGS)
        check_choice("freeze", self.freeze, FREEZE_CHOICES)
        check_width("align_dim", self.align_dim)
        super().__post_init__(**kwargs)

    @property
    def task(self) -> str:
        """single_label, multi_label or regression; models of before say nothing."""
        return (self.problem_type or "single_label").removesuffix("_classification")
