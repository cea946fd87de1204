"""From flags to everything that will be built, decided from configurations alone, before any weight is read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from data_utils.sources.arguments import DataArguments
from data_utils.system.schema import Within, check_types
from modeling.choices import PROBLEM_TYPES, frozen_modalities
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.pictures import PictureSettings
from modeling.towers import Tower
from training.build.adapters import add_adapters
from training.build.hub import REMEDIES, Pretrained
from training.build.tower_plan import TowerPlan, override_config, plan_dual_towers, plan_tower
from training.build.trial import try_pictures, try_texts
from training.flags.model import DEFAULT_CLIP_NAME, DEFAULT_TEXT_NAME, DEFAULT_VISION_NAME, ModelArguments

BICUBIC, BILINEAR = 3, 2  # Pillow's codes, as in preprocessor_config.json
DEFAULT_SIZE = 224
DEFAULT_MAX_LENGTH = 128
COMPOSED_PROJECTION_DIM = 512  # as in VisionTextDualEncoderConfig
Channels = Annotated[list[Annotated[float, Within(-1e6, 1e6)]], Within(1, 3)]
MAX_IMAGE_SIZE = 4_096
MAX_TEXT_LENGTH = 16_384  # tokens, where neither tower nor tokenizer has a limit below it


@dataclass(frozen=True)
class ModelPlan:
    """Everything that is known before data and weights are read; `training.build.build` makes the classifier of it.

    A tokenizer of None is to be trained on the training split; `reads` are of "text" and "image" those that the fusion
    head uses; `max_length` is in tokens; for `align_dim` see `SentimentConfig`.
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

    def for_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> ModelPlan:
        """The plan with the vocabulary of a tokenizer, where it was trained on these texts."""
        if self.tokenizer is not None:
            return self
        config = copy.deepcopy(self.text.config)
        config.vocab_size = len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        config.bos_token_id = tokenizer.cls_token_id
        config.eos_token_id = tokenizer.sep_token_id
        return replace(self, text=replace(self.text, config=config))

    def configure(
        self, args: ModelArguments, *, labels: Sequence[str], text_cleaning: str, task: str = "single_label"
    ) -> SentimentConfig:
        """The classifier's configuration, over the towers that the head of `args` reads."""
        return SentimentConfig(
            architecture=args.model,
            fusion=args.fusion,
            align_dim=self.align_dim,
            picture_pooling=args.picture_pooling,
            fusion_dropout=args.fusion_dropout,
            freeze=args.freeze,
            unfreeze_last=args.unfreeze_last,
            text_cleaning=text_cleaning,
            max_length=self.max_length,
            picture=self.picture.to_dict(),
            image_mean=list(self.image_mean),
            image_std=list(self.image_std),
            problem_type=PROBLEM_TYPES[task],
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            text_tower=self.text.settings() if "text" in args.modalities else None,
            vision_tower=self.vision.settings() if "image" in args.modalities else None,
        )


def plan_model(args: ModelArguments, data: DataArguments) -> ModelPlan:
    """Read the configurations, the tokenizer and the picture settings of the chosen towers.

    Raises:
        InputError: a name can't be had, a setting is unknown, or sizes don't fit.
    """
    sources = _find_sources(args)
    clip_source = sources.get("clip")
    text_source, vision_source = sources.get("text", clip_source), sources.get("vision", clip_source)
    picture, mean, std = _plan_picture(args, vision_source, data)
    side = picture.image_size
    if clip_source is not None:
        text, vision = plan_dual_towers(args, clip_source)
    else:
        text, vision = plan_tower(args, "text", text_source), plan_tower(args, "vision", vision_source)
    if vision_source is None:
        vision.config.image_size = side
    override_config("--text_config", text.config, args.text_config)
    override_config("--vision_config", vision.config, args.vision_config)
    text = replace(text, pooling=args.text_pooling)
    if args.vision_feature_layer is not None:  # a pretrained projection is of the usual vector
        vision = replace(vision, projection_dim=None, feature_layers=tuple(args.vision_feature_layer))
    _check_patches(vision, side)
    tokenizer = _load_tokenizer(args, text_source)
    if "image" in args.modalities:
        vision = vision.measured(pixel_values=torch.zeros(2, 3, side, side, device="meta"))
    if "text" in args.modalities:
        text = text.measured(input_ids=torch.zeros(2, 4, dtype=torch.long, device="meta"))
    is_composed = args.model == "clip" and clip_source is None and bool(sources)
    plan = ModelPlan(
        text=text,
        vision=vision,
        tokenizer=tokenizer,
        reads=args.modalities,
        picture=picture,
        image_mean=mean,
        image_std=std,
        max_length=data.max_length or DEFAULT_MAX_LENGTH,
        align_dim=(args.projection_dim or COMPOSED_PROJECTION_DIM) if is_composed else None,
    )
    with torch.device("meta"):  # no memory for weights
        towers = SentimentClassifier(plan.configure(args, labels=("no", "yes"), text_cleaning="none")).towers()
    _check_readouts(args, towers)
    if "image" in towers:
        try_pictures(towers["image"], vision, side)
    if args.lora_rank is not None:
        add_adapters(towers, args, name_sources(args))
    return replace(plan, max_length=_limit_length(plan, data.max_length))


def check_sources(args: ModelArguments) -> None:
    """`InputError` that names all pretrained parts that can't be had, where training would stop at the first."""
    faults = []
    for source in _find_sources(args).values():
        try:
            source.config()
        except InputError as error:
            faults.append(str(error).removesuffix(REMEDIES).strip())
    if faults:
        raise InputError(f"{' '.join(faults)} {REMEDIES}")


def name_sources(args: ModelArguments) -> dict[str, str]:
    """By "text" and "image" where a tower's weights come from, a name of the hub or the path of a folder."""
    sources = {} if args.from_scratch else _find_sources(args)
    found = {kind: sources.get(key, sources.get("clip")) for kind, key in (("text", "text"), ("image", "vision"))}
    named = {kind: Path(each.name).expanduser() for kind, each in found.items() if each and kind in args.modalities}
    return {kind: str(path.resolve()) if path.is_dir() else str(path) for kind, path in named.items()}


def _find_sources(args: ModelArguments) -> dict[str, Pretrained]:
    """Of "text", "vision" and "clip" those that are named; what is missing comes from a default size."""
    names = {"text": args.text_name, "vision": args.vision_name, "clip": args.clip_name}
    if args.model == "vilbert" and not args.from_scratch:
        names["text"] = names["text"] or (DEFAULT_TEXT_NAME if "text" in args.modalities else None)
        names["vision"] = names["vision"] or (DEFAULT_VISION_NAME if "image" in args.modalities else None)
    if args.model == "clip" and not args.from_scratch and not any(names.values()):
        names["clip"] = DEFAULT_CLIP_NAME
    return {kind: Pretrained(name, args.trust_remote_code) for kind, name in names.items() if name}


def _plan_picture(
    args: ModelArguments, source: Pretrained | None, data: DataArguments
) -> tuple[PictureSettings, tuple[float, ...], tuple[float, ...]]:
    """Picture settings, mean and std: the source's own, else the architecture's."""
    size = shortest = DEFAULT_SIZE
    if source is not None:
        processor = source.image_processor()
        with source.wrap_errors():
            size, shortest, resample = _read_geometry(source.name, processor)
            mean, std = list(processor.image_mean), list(processor.image_std)
            check_types([mean, std], list[Channels], f"The image processor of {source.name!r}", remedy="choose another")
    elif args.model == "clip":
        resample, mean, std = BICUBIC, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    else:
        resample, mean, std = BILINEAR, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
    if data.image_size is not None:
        size, shortest = data.image_size, round(shortest * data.image_size / size)
    if not 1 <= size <= MAX_IMAGE_SIZE:
        raise InputError(f"Got pictures of {size} px a side; allowed are 1 to {MAX_IMAGE_SIZE} (--image_size).")
    mode = data.image_resize_mode or ("squash" if args.model == "clip" else "shortest")
    settings = PictureSettings(image_size=size, shortest_edge=shortest, resize_mode=mode, resample=resample)
    return settings, tuple(mean), tuple(std)


def _read_geometry(name: str, processor: BaseImageProcessor) -> tuple[int, int, int]:
    """Side of the square that the tower sees, shortest edge before the crop, and Pillow's resampling code."""
    size, crop = dict(processor.size), dict(processor.crop_size or {}) if processor.do_center_crop else {}
    sides = {value for key, value in (crop or size).items() if key in ("height", "width", "shortest_edge") and value}
    if len(sides) != 1:
        raise InputError(f"The image processor of {name!r} makes {crop or size}; only squares are supported.")
    side = sides.pop()
    return side, max(side, size.get("shortest_edge") or size.get("height") or side), int(processor.resample)


def _load_tokenizer(args: ModelArguments, source: Pretrained | None) -> PreTrainedTokenizerBase | None:
    if source is None:
        return None
    tokenizer = source.tokenizer()
    if tokenizer.pad_token_id is None:
        raise InputError(f"The tokenizer of {source.name!r} has no padding token; choose another encoder.")
    for name in ("lowercase", "vocab_size"):
        if getattr(args, name) != getattr(ModelArguments, name):
            raise InputError(f"Got --{name} for the tokenizer of {source.name!r}, which brings its own; leave it out.")
    return tokenizer


def _check_patches(vision: TowerPlan, image_size: int) -> None:
    """Whether pictures of `image_size` px can be cut into whole patches; a tower without patches takes any."""
    patch_size, own_size = (getattr(vision.config, name, None) for name in ("patch_size", "image_size"))
    patch_size = patch_size if isinstance(patch_size, int) else 1
    if patch_size < 1 or image_size < patch_size or image_size % patch_size:
        raise InputError(f"Pictures of {image_size} px aren't whole patches of {patch_size} px; change --image_size.")
    if isinstance(own_size, int) and own_size < patch_size:
        raise InputError(f"Got the image_size {own_size} in the picture tower's settings, which is less than a patch.")


def _check_readouts(args: ModelArguments, towers: Mapping[str, Tower]) -> None:
    """Whether the towers can be read as --text_pooling and --vision_feature_layer say, and all their blocks learn."""
    text, image = towers.get("text"), towers.get("image")
    if text is not None and text.pooling != "default" and text.pads_texts:
        raise InputError(f"Got --text_pooling; {type(text.encoder).__name__} reads texts without a mask: leave it out.")
    if image is None or not image.feature_layers:
        return
    count = image.encoder.config.num_hidden_layers
    is_frozen = args.unfreeze_last is None and "image" in frozen_modalities(args.freeze, None)
    if max(image.feature_layers) < count and not is_frozen:
        raise InputError(f"--vision_feature_layer leaves the last block, {count}, out; add it, or take --freeze image.")


def _limit_length(plan: ModelPlan, wanted: int | None) -> int:
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
