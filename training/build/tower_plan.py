"""From a name or a default size to a tower's class and configuration, before any weight is read."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
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
from modeling.loading import bounded_build, check_sizes
from modeling.towers import build_encoder, hidden_size, lay_out_tokens, own_options
from training.build.hub import Pretrained
from training.flags.model import ModelArguments

# The parts of a dual model: its tower's attribute, and that of the projection behind it.
PROJECTIONS = {"text_model": "text_projection", "vision_model": "visual_projection"}
SMALL_BERT = {"num_hidden_layers": 8, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
# By architecture and kind: class, configuration and settings of a tower of the default size.
DEFAULT_TOWERS: dict[tuple[str, str], tuple[type[PreTrainedModel], type[PreTrainedConfig], dict[str, Any]]] = {
    ("baseline", "text"): (BertModel, BertConfig, SMALL_BERT),
    ("baseline", "vision"): (ViTModel, ViTConfig, {}),
    ("vilbert", "text"): (BertModel, BertConfig, {}),
    ("vilbert", "vision"): (ViTModel, ViTConfig, {}),
    ("clip", "text"): (CLIPTextModel, CLIPTextConfig, {}),
    ("clip", "vision"): (CLIPVisionModel, CLIPVisionConfig, {}),
}


@dataclass(frozen=True)
class TowerPlan:
    """One tower before its weights; how it is read out, see `Tower`.

    Attributes:
        projection_dim: width of the pretrained projection, None without one.
        source: of the weights, None for random ones.
        part: the attribute of a dual model that holds this tower ("text_model"), None for a model of its own.
        token_width: width of the tokens where the configuration tells none or another.
    """

    encoder_class: type[PreTrainedModel]
    config: PreTrainedConfig
    projection_dim: int | None = None
    source: Pretrained | None = None
    part: str | None = None
    pooling: str = "default"
    feature_layers: tuple[int, ...] | None = None
    token_width: int | None = None

    def settings(self) -> dict[str, Any]:
        """From which `Tower` builds it, as plain JSON."""
        config = self.config.to_dict()
        # A float16 file would keep the tower in float16 (transformers 5); we train and save float32.
        # Names of another task's classes, of which there may be thousands, belong to no encoder; nor does a folder.
        other = ("architectures", "transformers_version", "id2label", "label2id", "_name_or_path")
        for key in ("dtype", "torch_dtype", *other):
            config.pop(key, None)
        # DINOv2 and its like keep a mask token for their pretraining only: a parameter that never gets a gradient.
        if "use_mask_token" in config:
            config["use_mask_token"] = False
        return {
            "class_name": self.encoder_class.__name__,
            "config": config,
            "projection_dim": self.projection_dim,
            **({} if self.pooling == "default" else {"pooling": self.pooling}),
            **({} if self.feature_layers is None else {"feature_layers": list(self.feature_layers)}),
            **({} if self.token_width is None else {"token_width": self.token_width}),
        }

    def measured(self, **inputs: Tensor) -> TowerPlan:
        """The plan with its `token_width` and `pooling`, where they are others than the settings and CLS.

        Without a pooled output, a map of a picture and tokens that are all patches have none that stands for the whole;
        there the vector is their mean. `inputs` are of its encoder, for two rows, on the device meta.
        """
        with torch.device("meta"), torch.no_grad():
            encoder = build_encoder(self.encoder_class.__name__, self.settings()["config"]).eval()
            try:
                output = encoder(**inputs, **own_options(encoder))
                tokens, pooled = lay_out_tokens(output.last_hidden_state), output.get("pooler_output")
            except Exception:  # any: another library's code; the trial of the whole tower tells what the fault is
                return self
        width = None if tokens.shape[-1] == hidden_size(encoder.config) else tokens.shape[-1]
        is_patches = output.last_hidden_state.dim() == 4
        if "pixel_values" in inputs and isinstance(size := getattr(encoder.config, "patch_size", None), int):
            is_patches |= tokens.shape[1] == (inputs["pixel_values"].shape[-1] // size) ** 2
        is_mean = pooled is None and is_patches and self.pooling == "default"
        return replace(self, token_width=width, pooling="mean" if is_mean else self.pooling)


def plan_tower(args: ModelArguments, kind: str, source: Pretrained | None) -> TowerPlan:
    """A tower ("text" or "vision") that is a model of its own: of a source, else of the architecture's default size.

    Raises:
        InputError: the source can't be had, or is no single encoder.
    """
    if source is None:
        encoder_class, config_class, settings = DEFAULT_TOWERS[args.model, kind]
        projection_dim = args.projection_dim or CLIPTextConfig().projection_dim if args.model == "clip" else None
        return TowerPlan(encoder_class, config_class(**settings), projection_dim=projection_dim)
    config = source.config()
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        raise InputError(f"{source.name!r} is a dual encoder; give it as --clip_name with --model clip.")
    encoder_class = _find_encoder(source.name, config, kind)
    return TowerPlan(encoder_class, config, source=None if args.from_scratch else source)


def _find_encoder(name: str, config: PreTrainedConfig, kind: str) -> type[PreTrainedModel]:
    """The class of the encoder alone, which for T5 and its like is another one than that of the whole model."""
    families = [AutoModelForTextEncoding] if kind == "text" else []
    families += [] if config.is_encoder_decoder else [AutoModel]
    for family in families:
        if type(config) in family._model_mapping:
            found = family._model_mapping[type(config)]
            classes = found if isinstance(found, tuple) else (found,)
            return next((each for each in classes if each.__name__ in (config.architectures or ())), classes[0])
    raise InputError(f"{name!r} is a {config.model_type!r} model, which has no {kind} encoder alone; choose another.")


def plan_dual_towers(args: ModelArguments, source: Pretrained) -> tuple[TowerPlan, TowerPlan]:
    """Both towers of a CLIP-like model, found on its skeleton; `InputError` where it can't be had, or is another."""
    config = source.config()
    what = f"--clip_name {source.name!r} is a {config.model_type!r} model"
    if not (hasattr(config, "text_config") and hasattr(config, "vision_config")):
        raise InputError(f"{what}, not a dual encoder; give single encoders as --text_name and --vision_name.")
    with torch.device("meta"), source.wrap_errors(), bounded_build(repr(source.name)):
        skeleton = AutoModel.from_config(config, trust_remote_code=source.trust_remote_code)
    plans = []
    for part, projection in PROJECTIONS.items():
        tower, layer = getattr(skeleton, part, None), getattr(skeleton, projection, None)
        if tower is None or not hasattr(transformers, type(tower).__name__) or not isinstance(layer, nn.Linear | None):
            raise InputError(f"{what}, which has no plain {part} and projection; choose a model like CLIP or SigLIP.")
        width = None if layer is None else layer.out_features
        weights = None if args.from_scratch else source
        plans.append(TowerPlan(type(tower), copy.deepcopy(tower.config), width, source=weights, part=part))
    width = plans[0].projection_dim
    if args.projection_dim not in (None, width):
        raise InputError(f"Got --projection_dim {args.projection_dim}, but {source.name!r} has {width}; leave it out.")
    return plans[0], plans[1]


def override_config(flag: str, config: PreTrainedConfig, values: dict[str, Any]) -> None:
    """Set what `flag` asks for; `InputError` where the configuration has no such key, or refuses the value."""
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
