"""Whether planned towers fit the pictures and the flags, found out without memory for weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedConfig

from modeling.choices import frozen_modalities
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.fusion import get_fusion_head
from training.flags.model import ModelArguments

if TYPE_CHECKING:
    from training.build.plan import ModelPlan


def check_patches(config: PreTrainedConfig, image_size: int) -> None:
    """Whether pictures of `image_size` px can be cut into whole patches; a tower without patches takes any.

    Raises:
        InputError: they can't.
    """
    patch_size = getattr(config, "patch_size", 1)
    if isinstance(patch_size, int) and (patch_size < 1 or image_size < patch_size or image_size % patch_size):
        raise InputError(
            f"Pictures of {image_size} px can't be cut into patches of {patch_size} px; "
            "set --image_size to a multiple of the patch size."
        )
    own_size = getattr(config, "image_size", None)
    if isinstance(own_size, int) and own_size < max(1, patch_size if isinstance(patch_size, int) else 1):
        raise InputError(f"Got the image_size {own_size} in the picture tower's settings, which is less than a patch.")


def build_skeleton(args: ModelArguments, plan: ModelPlan) -> SentimentClassifier:
    """The classifier that is planned, without memory for its weights, and before anything is frozen.

    Raises:
        InputError: it can't be built, or is too large for this machine.
    """
    head = get_fusion_head(args.fusion)
    config = plan.configure(
        replace(args, freeze="none", unfreeze_last=None, cache_features=None),
        text=plan.text if head.uses_text else None,
        vision=plan.vision if head.uses_image else None,
        labels=("negative", "positive"),
        text_cleaning="none",
    )
    with torch.device("meta"):
        return SentimentClassifier(config)


def check_readouts(args: ModelArguments, skeleton: SentimentClassifier) -> None:
    """Whether the towers can be read as --text_pooling and --vision_feature_layer say.

    Raises:
        InputError: a tower can't, or its last block would learn nothing.
    """
    text, image = skeleton.text_tower, skeleton.image_tower
    if text is not None and text.pooling != "default" and text.pads_texts:
        raise InputError(
            f"Got --text_pooling {text.pooling}, but {type(text.encoder).__name__} reads texts without a mask, padding "
            "and all; leave it out."
        )
    if image is None or not image.feature_layers:
        return
    count = image.encoder.config.num_hidden_layers
    is_frozen = args.unfreeze_last is None and "image" in frozen_modalities(args.freeze, None)
    if max(image.feature_layers) < count and not is_frozen:
        raise InputError(
            f"Got --vision_feature_layer {' '.join(map(str, args.vision_feature_layer))}, which leaves the last block, "
            f"{count}, out, so that it could learn nothing; name it too, or freeze the tower with --freeze image."
        )


def check_blocks(args: ModelArguments, skeleton: SentimentClassifier) -> None:
    """Whether --unfreeze_last fits the towers.

    Raises:
        InputError: a tower can't be cut there, see `Tower.freeze`.
    """
    towers = skeleton.towers()
    for kind in frozen_modalities(args.freeze, args.unfreeze_last):
        if kind in towers:
            towers[kind].freeze(args.unfreeze_last)
