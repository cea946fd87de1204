"""From flags to everything that will be built, decided from configurations alone, before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from data_utils.sources.pictures import PictureSettings
from data_utils.system.schema import Within, check_types
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.fusion import get_fusion_head
from run_files import hub
from training.build.plan_checks import build_skeleton, check_blocks, check_patches, check_readouts
from training.build.readout import measure_output
from training.build.tower_plan import TowerPlan, override_config, plan_dual_towers, plan_tower
from training.build.trial import try_pictures, try_texts
from training.flags.model import DEFAULT_CLIP_NAME, DEFAULT_TEXT_NAME, DEFAULT_VISION_NAME, ModelArguments

BICUBIC, BILINEAR = 3, 2  # Pillow's codes, as in preprocessor_config.json
DEFAULT_MAX_LENGTH = 128
COMPOSED_PROJECTION_DIM = 512  # as in VisionTextDualEncoderConfig
Channels = Annotated[list[Annotated[float, Within(-1e6, 1e6)]], Within(1, 3)]
MAX_IMAGE_SIZE = 4_096
MAX_TEXT_LENGTH = 16_384  # tokens, where neither tower nor tokenizer has a limit below it


@dataclass(frozen=True)
class ModelPlan:
    """Everything that is known before data and weights are read; `training.build.build` makes the classifier of it.

    Attributes:
        tokenizer: None: it is to be trained on the training split.
        reads: of "text" and "picture" those that the fusion head uses.
        max_length: limit of tokens; None: from the tokenizer trained later.
        align_dim: see `SentimentConfig`.
    """

    text: TowerPlan
    vision: TowerPlan
    tokenizer: PreTrainedTokenizerBase | None
    reads: tuple[str, ...]
    picture: PictureSettings
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    max_length: int
    align_dim: int | None

    def configure(
        self,
        args: ModelArguments,
        *,
        text: TowerPlan | None,
        vision: TowerPlan | None,
        labels: Sequence[str],
        text_cleaning: str,
    ) -> SentimentConfig:
        """The classifier's configuration, over the towers that its head uses."""
        return SentimentConfig(
            architecture=args.model,
            fusion=args.fusion,
            align_dim=self.align_dim,
            fusion_dropout=args.fusion_dropout,
            freeze=args.freeze,
            unfreeze_last=args.unfreeze_last,
            text_cleaning=text_cleaning,
            max_length=self.max_length,
            picture=self.picture.to_dict(),
            image_mean=list(self.image_mean),
            image_std=list(self.image_std),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            text_tower=text and text.settings(),
            vision_tower=vision and vision.settings(),
        )


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
        text, vision = plan_dual_towers(args, clip_name)
    else:
        text = plan_tower(args, "text", text_name)
        vision = plan_tower(args, "vision", vision_name)
    if vision.source is None and not (vision_name or clip_name):
        vision.config.image_size = picture.image_size
    override_config("--text_config", text.config, args.text_config)
    override_config("--vision_config", vision.config, args.vision_config)
    text = replace(text, pooling=args.text_pooling)
    if args.vision_feature_layer is not None:  # a pretrained projection is of the usual vector
        vision = replace(vision, projection_dim=None, feature_layers=tuple(args.vision_feature_layer))
    check_patches(vision.config, picture.image_size)
    source = text_name or clip_name
    tokenizer = None if source is None else hub.load_tokenizer(source, trust_remote_code=args.trust_remote_code)
    if tokenizer is not None and tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {source!r} has no padding token; choose an encoder that was trained in batches."
        )
    own = [name for name in ("lowercase", "vocab_size") if getattr(args, name) != getattr(ModelArguments, name)]
    if tokenizer is not None and own:
        raise InputError(
            f"Got --{own[0]} {getattr(args, own[0])}, for a tokenizer that is trained here, but {source!r} brings "
            "its own; leave it out."
        )
    reads = get_fusion_head(args.fusion).reads()
    if "picture" in reads:
        vision = measure_output(vision, pixel_values=torch.zeros(2, 3, *[picture.image_size] * 2, device="meta"))
    if "text" in reads:
        text = measure_output(text, input_ids=torch.zeros(2, 4, dtype=torch.long, device="meta"))
    composed = args.model == "clip" and clip_name is None and (text_name or vision_name)
    plan = ModelPlan(
        text=text,
        vision=vision,
        tokenizer=tokenizer,
        reads=reads,
        picture=picture,
        image_mean=tuple(mean),
        image_std=tuple(std),
        max_length=max_length or DEFAULT_MAX_LENGTH,
        align_dim=(args.projection_dim or COMPOSED_PROJECTION_DIM) if composed else None,
    )
    skeleton = build_skeleton(args, plan)
    check_readouts(args, skeleton)
    if skeleton.uses_image:
        try_pictures(skeleton.image_tower, vision, picture.image_size)
    check_blocks(args, skeleton)
    return replace(plan, max_length=_max_length(max_length, plan))


def check_sources(args: ModelArguments) -> None:
    """Look for every pretrained part that the flags name.

    Raises:
        InputError: some can't be had; it names all of these, where training would stop at the first.
    """
    faults = []
    for name in filter(None, _names(args)):
        try:
            hub.load_config(name, trust_remote_code=args.trust_remote_code)
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


def _picture(
    args: ModelArguments, name: str | None, image_size: int | None, resize_mode: str
) -> tuple[PictureSettings, Any, Any]:
    """Picture settings, mean and std: the named model's own, else its architecture's."""
    if name is not None:
        processor = hub.load_image_processor(name, trust_remote_code=args.trust_remote_code)
        with hub.wrap_load_errors(name, hub.REMEDIES):
            size, shortest, resample = _processor_geometry(name, processor)
            mean, std = list(processor.image_mean), list(processor.image_std)
            check_types([mean, std], list[Channels], f"The image processor of {name!r}", remedy="choose another one")
    elif args.model == "clip":
        size, shortest, resample, mean, std = 224, 224, BICUBIC, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    else:
        size, shortest, resample, mean, std = 224, 224, BILINEAR, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
    if image_size is not None:
        size, shortest = image_size, round(shortest * image_size / size)
    if not 1 <= size <= MAX_IMAGE_SIZE:
        raise InputError(f"Got pictures of {size} px a side; allowed are 1 to {MAX_IMAGE_SIZE} (--image_size).")
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


def _max_length(wanted: int | None, plan: ModelPlan) -> int:
    """Tokens a text is cut to: what is asked for, within what the tower, which is tried first, can take."""
    config, tokenizer = plan.text.config, plan.tokenizer
    claims = [getattr(config, "max_position_embeddings", None), tokenizer and tokenizer.model_max_length]
    limits = [claim for claim in claims if isinstance(claim, int) and claim > 0]  # XLNet's -1: as many as you like
    limit = min(min(limits, default=DEFAULT_MAX_LENGTH), MAX_TEXT_LENGTH)
    if "text" in plan.reads:
        limit = try_texts(plan.text, tokenizer, limit=limit, wanted=wanted or DEFAULT_MAX_LENGTH)
    if wanted is not None and not 2 <= wanted <= limit:
        raise InputError(f"Got --max_length {wanted}; this text tower takes 2 to {limit} tokens.")
    return wanted or min(limit, DEFAULT_MAX_LENGTH)
