"""From a plan to a classifier with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init

from data_utils.prepare.columns import TOWER_INPUTS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.loading import describe_differences
from modeling.towers import Tower
from training.build.adapters import add_adapters
from training.build.hub import Pretrained
from training.build.parameters import compare_sizes, example_inputs
from training.build.plan import ModelPlan, name_sources
from training.build.tower_plan import PROJECTIONS, TowerPlan
from training.build.trial import check_reading, check_seeing
from training.flags.model import ModelArguments

# Parts of published checkpoints that our towers leave out, because nothing would train them.
LEFT_OUT = ("pooler.", "embeddings.mask_token")


def build_model(
    plan: ModelPlan,
    args: ModelArguments,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    text_cleaning: str,
    task: str = "single_label",
    towers: Mapping[str, Tower] | None = None,
) -> SentimentClassifier:
    """The classifier in float32 on the CPU: the head at random, the towers from their sources.

    `towers`, by "text" and "image", are those of a model that was built like this one: shared with it instead of read
    again. The head gets the same weights either way.

    Raises:
        InputError: a source can't be had, or its weights don't fit.
    """
    plan, given = plan.for_tokenizer(tokenizer), towers or {}
    config = plan.configure(args, labels=labels, text_cleaning=text_cleaning, task=task)
    plans = {kind: {"text": plan.text, "image": plan.vision}[kind] for kind in args.modalities}
    is_filled = all(tower.source is not None for tower in plans.values())
    # Towers that are filled needn't be drawn at random first: of CLIP that takes longer than reading its weights.
    with init.no_init_weights() if is_filled else nullcontext():
        model = SentimentClassifier(config)
    _fill_towers(model, plans, given)
    if is_filled:
        model.initialize_weights()
    inputs = example_inputs(model)
    for kind, tower in model.towers().items():
        if tower.frozen_blocks.num_frozen:  # refuses those that depend on the rest
            tower.run_frozen(**{name: inputs[name] for name in TOWER_INPUTS[kind]})
        # The towers that are made here for a tokenizer that is trained are known to read to the end.
        if kind == "text" and plan.tokenizer is not None and kind not in given:
            check_reading(tower, tokenizer, plan.max_length)
        if kind == "image" and kind not in given:
            check_seeing(tower, plan.picture.image_size)
    if args.lora_rank is not None:
        add_adapters(model.towers(), args, name_sources(args))
    return model


def _fill_towers(model: SentimentClassifier, plans: Mapping[str, TowerPlan], given: Mapping[str, Tower]) -> None:
    """Put in the towers that are given, and copy the weights of the others that have a source.

    `initialize_weights` leaves both alone afterwards.
    """
    donors: dict[tuple[Pretrained, type[PreTrainedModel] | None], nn.Module] = {}
    for kind, tower in model.towers().items():
        plan = plans[kind]
        if kind in given:
            # It was built all the same: some encoders draw numbers while they are, and the head draws after them.
            setattr(model, f"{kind}_tower", given[kind])
        elif plan.source is not None:
            # Both towers of a dual encoder come from one; an encoder may be a part of what its folder holds (T5).
            key = (plan.source, plan.encoder_class if plan.part is None else None)
            if key not in donors:
                donors[key] = _load_donor(*key)
            donor, name = donors[key], plan.source.name
            _copy(tower.encoder, donor if plan.part is None else getattr(donor, plan.part), name)
            if tower.projection is not None and plan.part is not None:
                _copy(tower.projection, getattr(donor, PROJECTIONS[plan.part]), name)
            for module in tower.modules():
                vars(module)["_is_hf_initialized"] = True  # transformers' own mark


def _load_donor(source: Pretrained, model_class: type[PreTrainedModel] | None) -> nn.Module:
    # What a checkpoint leaves out is drawn, and dropped here; the head's weights mustn't depend on that.
    with torch.random.fork_rng(devices=[]):
        donor, info = source.model(model_class)
    never_saved = {key for key in info["missing_keys"] if not _is_left_out(key)}
    if differences := describe_differences(never_saved, (), info["mismatched_keys"]):
        what = "are incomplete" if never_saved else "don't fit its config.json"
        raise InputError(f"The weights of {source.name!r} {what}. {differences}")
    return donor


def _copy(target: nn.Module, donor: nn.Module, name: str) -> None:
    """Copy a pretrained model's weights, or those of its part, into a tower."""
    wanted = target.state_dict()
    found = {key: value for key, value in donor.state_dict().items() if key in wanted or not _is_left_out(key)}
    if differences := compare_sizes(found, wanted):
        raise InputError(f"The weights of {name!r} don't fit the tower. {differences}")
    target.load_state_dict(found)  # copies into float32 parameters, whatever precision the file has


def _is_left_out(key: str) -> bool:
    return any(part in key for part in LEFT_OUT)
