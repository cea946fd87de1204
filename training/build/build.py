"""From a plan to a classifier with its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase
from transformers import initialization as init

from data_utils.sources.pictures import PictureSettings
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.fusion import get_fusion_head
from modeling.state import describe_differences
from modeling.towers import Tower
from run_files import hub
from training.build.plan import ModelPlan
from training.build.tower_plan import TowerPlan
from training.build.trial import check_reading, check_seeing
from training.flags.model import ModelArguments

# Parts of published checkpoints that our towers leave out, because nothing would train them.
LEFT_OUT = ("pooler.", "embeddings.mask_token")
PROJECTIONS = {"text_model": "text_projection", "vision_model": "visual_projection"}


def build_model(
    plan: ModelPlan,
    args: ModelArguments,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    text_cleaning: str,
    towers: Mapping[str, Tower] | None = None,
) -> SentimentClassifier:
    """The classifier in float32 on the CPU: the head at random, the towers from their sources.

    Args:
        plan, args, tokenizer, labels, text_cleaning: what to build.
        towers: of a model that was built like this one, under "text" and "image": shared with it instead of read again.
            The head gets the same weights either way.

    Raises:
        InputError: a source can't be had, or its weights don't fit.
    """
    plans = _choose_towers(plan, args.fusion, tokenizer)
    config = plan.configure(args, text=plans["text"], vision=plans["image"], labels=labels, text_cleaning=text_cleaning)
    if any(tower.source is None for tower in plans.values() if tower):
        model = SentimentClassifier(config)
        _fill_towers(model, plans, towers or {}, trust_remote_code=args.trust_remote_code)
    else:
        # Towers that are filled needn't be drawn at random first: of CLIP that takes longer than reading its weights.
        with init.no_init_weights():
            model = SentimentClassifier(config)
        _fill_towers(model, plans, towers or {}, trust_remote_code=args.trust_remote_code)
        model.initialize_weights()
    _check_frozen_blocks(model)
    # The towers that are made here for a tokenizer that is trained are known to read to the end.
    if model.uses_text and plan.tokenizer is not None and "text" not in (towers or {}):
        check_reading(model.text_tower, tokenizer, plan.max_length)
    if model.uses_image and "image" not in (towers or {}):
        check_seeing(model.image_tower, plan.picture.image_size)
    return model


def _choose_towers(plan: ModelPlan, fusion: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, TowerPlan | None]:
    head = get_fusion_head(fusion)
    text = plan.text if plan.tokenizer is not None else _fit_vocabulary(plan.text, tokenizer)
    return {"text": text if head.uses_text else None, "image": plan.vision if head.uses_image else None}


def _check_frozen_blocks(model: SentimentClassifier) -> None:
    """Refuse encoders whose frozen blocks depend on what is trained: one row tells."""
    size = model.config.picture["image_size"]
    inputs = {
        "text": dict.fromkeys(("input_ids", "attention_mask"), torch.ones(1, 4, dtype=torch.long)),
        "image": {"pixel_values": torch.zeros(1, 3, size, size)},
    }
    for kind, tower in model.towers().items():
        if tower.frozen_blocks is not None and tower.frozen_blocks.num_frozen:
            tower.run_frozen(**inputs[kind])


def _fill_towers(
    model: SentimentClassifier,
    plans: Mapping[str, TowerPlan | None],
    given: Mapping[str, Tower],
    *,
    trust_remote_code: bool,
) -> None:
    """Put in the towers that are given, and copy the weights of the others that have a source.

    `initialize_weights` leaves both alone afterwards.
    """
    donors: dict[tuple[str, type | None], nn.Module] = {}
    for kind, tower in model.towers().items():
        plan = plans[kind]
        if kind in given:
            # It was built all the same: some encoders draw numbers while they are, and the head draws after them.
            setattr(model, f"{kind}_tower", given[kind])
        elif plan.source is not None:
            # Both towers of a dual encoder come from one; an encoder may be a part of what its folder holds (T5).
            key = (plan.source, plan.encoder_class if plan.part is None else None)
            if key not in donors:
                donors[key] = _load_donor(*key, trust_remote_code=trust_remote_code)
            _fill_tower(tower, plan, donors[key])
            for module in tower.modules():
                module._is_hf_initialized = True  # transformers' own mark


def _load_donor(source: str, model_class: type | None, *, trust_remote_code: bool) -> nn.Module:
    # What a checkpoint leaves out is drawn, and dropped here; the head's weights mustn't depend on that.
    with torch.random.fork_rng(devices=[]):
        donor, info = hub.load_model(source, trust_remote_code=trust_remote_code, model_class=model_class)
    never_saved = {key for key in info["missing_keys"] if not _left_out(key)}
    if differences := describe_differences(never_saved, (), info["mismatched_keys"]):
        what = "are incomplete" if never_saved else "don't fit its config.json"
        raise InputError(f"The weights of {source!r} {what}. {differences}")
    return donor


def _fill_tower(tower: Tower, plan: TowerPlan, donor: nn.Module) -> None:
    """Copy a pretrained model's weights, or those of its part, into a tower."""
    _copy(tower.encoder, donor if plan.part is None else getattr(donor, plan.part), source=plan.source)
    if tower.projection is not None:
        _copy(tower.projection, getattr(donor, PROJECTIONS[plan.part]), source=plan.source)


def _copy(target: nn.Module, donor: nn.Module, *, source: str) -> None:
    wanted, found = target.state_dict(), donor.state_dict()
    missing = {key for key in wanted if key not in found}
    unexpected = {key for key in found if key not in wanted and not _left_out(key)}
    mismatched = [
        (key, tuple(found[key].shape), tuple(wanted[key].shape))
        for key in wanted.keys() & found.keys()
        if found[key].shape != wanted[key].shape
    ]
    differences = describe_differences(missing, unexpected, mismatched)
    if differences:
        raise InputError(f"The weights of {source!r} don't fit the tower. {differences}")
    # load_state_dict copies into float32 parameters, whatever precision the file has.
    target.load_state_dict({key: found[key] for key in wanted})


def _left_out(key: str) -> bool:
    return any(part in key for part in LEFT_OUT)


def _fit_vocabulary(plan: TowerPlan, tokenizer: PreTrainedTokenizerBase) -> TowerPlan:
    """The text tower's plan for a tokenizer that was trained on these texts."""
    config = copy.deepcopy(plan.config)
    config.vocab_size = len(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = tokenizer.cls_token_id
    config.eos_token_id = tokenizer.sep_token_id
    return replace(plan, config=config)


def save_processors(folder: Path, tokenizer: PreTrainedTokenizerBase, config: SentimentConfig) -> None:
    """Write the tokenizer's files and a preprocessor_config.json beside the weights.

    The latter lets any transformers user prepare a picture as training did; AutoImageProcessor reads it. Our own model
    takes the uint8 pixels instead and normalises them itself.
    """
    tokenizer.save_pretrained(folder)
    picture = PictureSettings.from_dict(config.picture)
    square = {"height": picture.image_size, "width": picture.image_size}
    squash = picture.resize_mode == "squash"
    CLIPImageProcessorPil(
        size=square if squash else {"shortest_edge": picture.shortest_edge},
        do_center_crop=not squash,
        crop_size=square,
        resample=picture.resample,
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
    ).save_pretrained(folder)
