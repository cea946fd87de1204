"""From flags to towers: what will be built, decided from configurations alone, before any weight is read."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ViTConfig,
    ViTModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from data_utils.errors import InputError
from data_utils.pictures import PictureSettings
from modeling import hub
from modeling.arguments import DEFAULT_CLIP_NAME, DEFAULT_TEXT_NAME, DEFAULT_VISION_NAME, ModelArguments
from modeling.configuration import frozen_modalities
from modeling.fusion import get_fusion_head
from modeling.towers import READ_AT_THE_END, Tower, tower_settings

BICUBIC, BILINEAR = 3, 2  # Pillow's codes, as in preprocessor_config.json
DEFAULT_MAX_LENGTH = 128
COMPOSED_PROJECTION_DIM = 512  # as in VisionTextDualEncoderConfig


@dataclass(frozen=True)
class TowerPlan:
    """One tower before its weights.

    Attributes:
        encoder_class, config: of transformers.
        projection_dim: width of the pretrained projection, None without one.
        source: folder or hub name of the weights, None for random ones.
        part: the attribute of a dual model that holds this tower ("text_model"), None for a model of its own.
        pooling, feature_layers: how it is read out, see `Tower`.
    """

    encoder_class: type[PreTrainedModel]
    config: PreTrainedConfig
    projection_dim: int | None = None
    source: str | None = None
    part: str | None = None
    pooling: str = "default"
    feature_layers: tuple[int, ...] | None = None

    def settings(self) -> dict[str, Any]:
        """From which `Tower` builds it."""
        return tower_settings(
            self.encoder_class,
            self.config,
            projection_dim=self.projection_dim,
            pooling=self.pooling,
            feature_layers=self.feature_layers,
        )


@dataclass(frozen=True)
class ModelPlan:
    """Everything that is known before data and weights are read; `modeling.build` makes the classifier of it.

    Attributes:
        tokenizer: None: it is to be trained on the training split.
        max_length: limit of tokens; None: from the tokenizer trained later.
        align_dim: see `SentimentConfig`.
    """

    text: TowerPlan
    vision: TowerPlan
    tokenizer: PreTrainedTokenizerBase | None
    picture: PictureSettings
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    max_length: int
    align_dim: int | None


def plan_model(
    args: ModelArguments, *, image_size: int | None, image_resize_mode: str | None, max_length: int | None
) -> ModelPlan:
    """Read the configurations, the tokenizer and the picture settings of the chosen towers.

    Raises:
        InputError: a name can't be had, a setting is unknown, or sizes don't fit.
    """
    text_name, vision_name, clip_name = _names(args)
    resize_mode = image_resize_mode or ("squash" if args.model == "clip" else "shortest")
    picture, mean, std = _picture(args, vision_name or clip_name, image_size, resize_mode)
    if clip_name is not None:
        text, vision = _dual_towers(args, clip_name)
    else:
        text = _single_tower(args, "text", text_name)
        vision = _single_tower(args, "vision", vision_name)
    if vision.source is None and not (vision_name or clip_name):
        vision.config.image_size = picture.image_size
    _override("--text_config", text.config, args.text_config)
    _override("--vision_config", vision.config, args.vision_config)
    text = replace(text, pooling=args.text_pooling)
    if args.vision_feature_layer is not None:  # a pretrained projection is of the usual vector
        vision = replace(vision, projection_dim=None, feature_layers=tuple(args.vision_feature_layer))
    _check_patches(vision.config, picture.image_size)
    _check_readouts(args, text, vision)
    _check_blocks(args, {"text": text, "image": vision})
    source = text_name or clip_name
    tokenizer = None if source is None else hub.load_tokenizer(source)
    if tokenizer is not None and tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {source!r} has no padding token; choose an encoder that was trained in batches."
        )
    composed = args.model == "clip" and clip_name is None and (text_name or vision_name)
    return ModelPlan(
        text=text,
        vision=vision,
        tokenizer=tokenizer,
        picture=picture,
        image_mean=tuple(mean),
        image_std=tuple(std),
        max_length=_max_length(max_length, text.config, tokenizer),
        align_dim=(args.projection_dim or COMPOSED_PROJECTION_DIM) if composed else None,
    )


def check_sources(args: ModelArguments) -> None:
    """Look for every pretrained part that the flags name.

    Raises:
        InputError: some can't be had; it names all of these, where training would stop at the first.
    """
    faults = []
    for name in filter(None, _names(args)):
        try:
            hub.load_config(name)
        except InputError as error:
            faults.append(str(error).removesuffix(hub.REMEDIES).strip())
    if faults:
        raise InputError(f"{' '.join(faults)} {hub.REMEDIES}")


def _names(args: ModelArguments) -> tuple[str | None, str | None, str | None]:
    """Text, vision and clip name; None where the tower comes from a default size."""
    text_name, vision_name, clip_name = args.text_name, args.vision_name, args.clip_name
    if args.model == "vilbert" and not args.from_scratch:
        head = get_fusion_head(args.fusion)
        text_name = text_name or (DEFAULT_TEXT_NAME if head.uses_text else None)
        vision_name = vision_name or (DEFAULT_VISION_NAME if head.uses_image else None)
    if args.model == "clip" and not args.from_scratch and not (text_name or vision_name):
        clip_name = clip_name or DEFAULT_CLIP_NAME
    return text_name, vision_name, clip_name


def _single_tower(args: ModelArguments, kind: str, name: str | None) -> TowerPlan:
    """A tower that is a model of its own: pretrained, or of the architecture's default size."""
    if name is not None:
        config = hub.load_config(name)
        try:
            encoder_class = AutoModel._model_mapping[type(config)]
        except KeyError as error:
            raise InputError(
                f"{name!r} is a {config.model_type!r} model, which has no plain encoder in transformers."
            ) from error
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            raise InputError(f"{name!r} is a dual encoder; give it as --clip_name with --model clip.")
        return TowerPlan(encoder_class, config, source=None if args.from_scratch else name)
    if args.model == "clip":
        projection_dim = args.projection_dim or CLIPTextConfig().projection_dim
        encoder_class, config = (
            (CLIPTextModel, CLIPTextConfig()) if kind == "text" else (CLIPVisionModel, CLIPVisionConfig())
        )
        return TowerPlan(encoder_class, config, projection_dim=projection_dim)
    if kind == "vision":
        return TowerPlan(ViTModel, ViTConfig())
    if args.model == "baseline":
        small = BertConfig(num_hidden_layers=8, hidden_size=512, num_attention_heads=8, intermediate_size=2048)
        return TowerPlan(BertModel, small)
    return TowerPlan(BertModel, BertConfig())


def _dual_towers(args: ModelArguments, name: str) -> tuple[TowerPlan, TowerPlan]:
    """Both towers of a CLIP-like model, found on its skeleton (no memory for weights)."""
    config = hub.load_config(name)
    if not (hasattr(config, "text_config") and hasattr(config, "vision_config")):
        raise InputError(
            f"--clip_name {name!r} is a {config.model_type!r} model, not a dual encoder; "
            "give single encoders as --text_name and --vision_name."
        )
    with torch.device("meta"):
        skeleton = AutoModel.from_config(config)
    plans = []
    for part, projection in (("text_model", "text_projection"), ("vision_model", "visual_projection")):
        tower = getattr(skeleton, part, None)
        if tower is None:
            raise InputError(f"--clip_name {name!r} is a {config.model_type!r} model, which keeps no {part}.")
        layer = getattr(skeleton, projection, None)
        plans.append(
            TowerPlan(
                type(tower),
                copy.deepcopy(tower.config),
                projection_dim=None if layer is None else layer.out_features,
                source=None if args.from_scratch else name,
                part=part,
            )
        )
    if args.projection_dim is not None and args.projection_dim != plans[0].projection_dim:
        raise InputError(
            f"Got --projection_dim {args.projection_dim}, but {name!r} has {plans[0].projection_dim}; leave it out."
        )
    return plans[0], plans[1]


def _picture(
    args: ModelArguments, name: str | None, image_size: int | None, resize_mode: str
) -> tuple[PictureSettings, Any, Any]:
    """Picture settings, mean and std: the named model's own, else its architecture's."""
    if name is not None:
        processor = hub.load_image_processor(name)
        size, shortest, resample = _processor_geometry(name, processor)
        mean, std = processor.image_mean, processor.image_std
    elif args.model == "clip":
        size, shortest, resample, mean, std = 224, 224, BICUBIC, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    else:
        size, shortest, resample, mean, std = 224, 224, BILINEAR, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
    if image_size is not None:
        size, shortest = image_size, round(shortest * image_size / size)
    return (
        PictureSettings(image_size=size, shortest_edge=shortest, resize_mode=resize_mode, resample=resample),
        mean,
        std,
    )


def _processor_geometry(name: str, processor: BaseImageProcessor) -> tuple[int, int, int]:
    """Side of the square that the tower sees, shortest edge before the crop, and Pillow's resampling code."""
    size, crop = dict(processor.size), dict(processor.crop_size or {}) if processor.do_center_crop else {}
    sides = {value for key, value in (crop or size).items() if key in ("height", "width", "shortest_edge") and value}
    if len(sides) != 1:
        raise InputError(
            f"The image processor of {name!r} makes pictures of {crop or size}; only squares are supported."
        )
    side = sides.pop()
    return side, max(side, size.get("shortest_edge") or size.get("height") or side), int(processor.resample)


def _override(flag: str, config: PreTrainedConfig, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if not hasattr(config, key):
            near = difflib.get_close_matches(key, list(config.to_dict()), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"Got {key!r} in {flag}, which {type(config).__name__} doesn't have.{hint}")
        try:
            setattr(config, key, value)
        except StrictDataclassError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"Got {key!r}: {value!r} in {flag}, which doesn't fit: {reason}") from error


def _check_patches(config: PreTrainedConfig, image_size: int) -> None:
    patch_size = getattr(config, "patch_size", 1)
    if isinstance(patch_size, int) and (patch_size < 1 or image_size < patch_size or image_size % patch_size):
        raise InputError(
            f"Pictures of {image_size} px can't be cut into patches of {patch_size} px; "
            "set --image_size to a multiple of the patch size."
        )


def _check_readouts(args: ModelArguments, text: TowerPlan, vision: TowerPlan) -> None:
    """Whether the towers can be read as the flags say, found out without memory for weights."""
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


def _check_blocks(args: ModelArguments, towers: dict[str, TowerPlan]) -> None:
    """Whether --unfreeze_last fits the used towers, found out without memory for weights."""
    head = get_fusion_head(args.fusion)
    used = {"text": head.uses_text, "image": head.uses_image}
    for kind in frozen_modalities(args.freeze, args.unfreeze_last):
        if used[kind] and args.unfreeze_last is not None:
            with torch.device("meta"):
                Tower(towers[kind].settings()).freeze(args.unfreeze_last)


def _max_length(wanted: int | None, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """Tokens a text is cut to: what is asked for, within what the tower can take."""
    limits = [config.max_position_embeddings] if hasattr(config, "max_position_embeddings") else []
    limits += [tokenizer.model_max_length] if tokenizer is not None else []
    limit = min(limits, default=DEFAULT_MAX_LENGTH)
    if wanted is not None and not 2 <= wanted <= limit:
        raise InputError(f"Got --max_length {wanted}; this text tower takes 2 to {limit} tokens.")
    return wanted or min(limit, DEFAULT_MAX_LENGTH)
