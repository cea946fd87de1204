"""Whether planned towers fit the pictures and the flags, found out without memory for weights."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig

from data_utils.errors import InputError
from modeling.arguments import ModelArguments
from modeling.configuration import frozen_modalities
from modeling.fusion import get_fusion_head
from modeling.tower_plan import TowerPlan
from modeling.towers import READ_AT_THE_END, Tower


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


def check_readouts(args: ModelArguments, text: TowerPlan, vision: TowerPlan) -> None:
    """Whether the towers can be read as --text_pooling and --vision_feature_layer say.

    Raises:
        InputError: a tower can't, or its last block would learn nothing.
    """
    head = get_fusion_head(args.fusion)
    if args.text_pooling != "default" and head.uses_text and text.config.model_type in READ_AT_THE_END:
        raise InputError(
            f"Got --text_pooling {args.text_pooling}, but {text.encoder_class.__name__} reads texts without a mask, "
            "padding and all; leave it out."
        )
    if vision.feature_layers is None or not head.uses_image:
        return
    with torch.device("meta"):
        layers, count = Tower(vision.settings()).feature_layers, vision.config.num_hidden_layers
    is_frozen = args.unfreeze_last is None and "image" in frozen_modalities(args.freeze, None)
    if max(layers) < count and not is_frozen:
        raise InputError(
            f"Got --vision_feature_layer {' '.join(map(str, args.vision_feature_layer))}, which leaves the last block, "
            f"{count}, out, so that it could learn nothing; name it too, or freeze the tower with --freeze image."
        )


def check_blocks(args: ModelArguments, towers: dict[str, TowerPlan]) -> None:
    """Whether --unfreeze_last fits the used towers; `towers` has "text" and "image".

    Raises:
        InputError: a tower can't be cut there, see `Tower.freeze`.
    """
    head = get_fusion_head(args.fusion)
    used = {"text": head.uses_text, "image": head.uses_image}
    for kind in frozen_modalities(args.freeze, args.unfreeze_last):
        if used[kind] and args.unfreeze_last is not None:
            with torch.device("meta"):
                Tower(towers[kind].settings()).freeze(args.unfreeze_last)
