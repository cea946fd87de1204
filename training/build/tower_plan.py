"""From a name or a default size to a tower's class and configuration, before any weight is read."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from modeling.errors import InputError, reason_of
from modeling.sizes import bounded_build
from modeling.towers import tower_settings
from modeling.untrusted import check_sizes
from run_files import hub
from training.flags.model import ModelArguments


@dataclass(frozen=True)
class TowerPlan:
    """One tower before its weights.

    Attributes:
        encoder_class, config: of transformers.
        projection_dim: width of the pretrained projection, None without one.
        source: folder or hub name of the weights, None for random ones.
        part: the attribute of a dual model that holds this tower ("text_model"), None for a model of its own.
        pooling, feature_layers: how it is read out, see `Tower`.
        token_width: see `tower_settings`.
    """

    encoder_class: type[PreTrainedModel]
    config: PreTrainedConfig
    projection_dim: int | None = None
    source: str | None = None
    part: str | None = None
    pooling: str = "default"
    feature_layers: tuple[int, ...] | None = None
    token_width: int | None = None

    def settings(self) -> dict[str, Any]:
        """From which `Tower` builds it."""
        return tower_settings(
            self.encoder_class,
            self.config,
            projection_dim=self.projection_dim,
            pooling=self.pooling,
            feature_layers=self.feature_layers,
            token_width=self.token_width,
        )


def plan_tower(args: ModelArguments, kind: str, name: str | None) -> TowerPlan:
    """A tower that is a model of its own: pretrained, or of the architecture's default size.

    Args:
        kind: "text" or "vision".
        name: hub name or folder; None takes the default size.

    Raises:
        InputError: the name can't be had, or is no single encoder.
    """
    if name is not None:
        config = hub.load_config(name, trust_remote_code=args.trust_remote_code)
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            raise InputError(f"{name!r} is a dual encoder; give it as --clip_name with --model clip.")
        return TowerPlan(_find_encoder(name, config, kind), config, source=None if args.from_scratch else name)
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


def _find_encoder(name: str, config: PreTrainedConfig, kind: str) -> type[PreTrainedModel]:
    """The class of the encoder alone, which for T5 and its like is another one than that of the whole model."""
    families = [AutoModelForTextEncoding] if kind == "text" else []
    families += [] if config.is_encoder_decoder else [AutoModel]
    for family in families:
        if type(config) in family._model_mapping:
            found = family._model_mapping[type(config)]
            classes = found if isinstance(found, tuple) else (found,)
            return next((each for each in classes if each.__name__ in (config.architectures or ())), classes[0])
    raise InputError(
        f"{name!r} is a {config.model_type!r} model, of which transformers has no {kind} encoder alone; choose a model "
        "that is an encoder."
    )


def plan_dual_towers(args: ModelArguments, name: str) -> tuple[TowerPlan, TowerPlan]:
    """Both towers of a CLIP-like model, found on its skeleton (no memory for weights).

    Raises:
        InputError: the name can't be had, is no dual encoder, or projects to another width than --projection_dim.
    """
    config = hub.load_config(name, trust_remote_code=args.trust_remote_code)
    if not (hasattr(config, "text_config") and hasattr(config, "vision_config")):
        raise InputError(
            f"--clip_name {name!r} is a {config.model_type!r} model, not a dual encoder; "
            "give single encoders as --text_name and --vision_name."
        )
    with torch.device("meta"), hub.wrap_load_errors(name, hub.REMEDIES), bounded_build(repr(name)):
        skeleton = AutoModel.from_config(config, trust_remote_code=args.trust_remote_code)
    plans = []
    for part, projection in (("text_model", "text_projection"), ("vision_model", "visual_projection")):
        tower = getattr(skeleton, part, None)
        layer = getattr(skeleton, projection, None)
        if not hasattr(transformers, type(tower).__name__) or not isinstance(layer, nn.Linear | None):
            raise InputError(
                f"--clip_name {name!r} is a {config.model_type!r} model, which has no {part} of a class of its own "
                "with at most one linear layer behind it; choose a model like CLIP or SigLIP."
            )
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


def override_config(flag: str, config: PreTrainedConfig, values: dict[str, Any]) -> None:
    """Set what `flag` asks for in a tower's configuration.

    Raises:
        InputError: the configuration has no such key, or refuses the value.
    """
    check_sizes(values, flag)
    for key, value in values.items():
        if key.startswith("_") or not hasattr(config, key) or callable(getattr(config, key)):
            near = difflib.get_close_matches(key, list(config.to_dict()), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"Got {key!r} in {flag}, which {type(config).__name__} doesn't have.{hint}")
        try:
            setattr(config, key, value)
            config.to_dict()
        except Exception as error:  # any: transformers checks some values by using them
            raise InputError(f"Got {key!r}: {value!r} in {flag}, which doesn't fit: {reason_of(error)}") from error
