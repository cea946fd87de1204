"""Towers: one encoder of transformers each, read out as a vector and as tokens."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from data_utils.errors import InputError

# SigLIP reads a text from its last position, and was trained on texts padded to one length, without a mask.
READ_AT_THE_END = ("siglip_text_model", "siglip2_text_model")


def tower_settings(
    encoder_class: type[PreTrainedModel], config: PreTrainedConfig, *, projection_dim: int | None = None
) -> dict[str, Any]:
    """A tower as plain JSON, from which `Tower` builds it again without the hub."""
    settings = config.to_dict()
    # A float16 file would keep the tower in float16 (transformers 5); we train and save float32.
    for key in ("dtype", "torch_dtype", "architectures", "transformers_version"):
        settings.pop(key, None)
    # DINOv2 and its like keep a mask token for their pretraining only: a parameter that never gets a gradient.
    if "use_mask_token" in settings:
        settings["use_mask_token"] = False
    return {"class_name": encoder_class.__name__, "config": settings, "projection_dim": projection_dim}


def build_encoder(class_name: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A randomly initialised float32 encoder of a transformers class.

    A pooler with weights (BERT's, ViT's) is left out: it belongs to a pretraining task, and CLS serves instead. One
    without weights stays: it is the mean by which encoders without CLS are read.

    Raises:
        InputError: transformers has no such class, or refuses the settings.
    """
    encoder_class = getattr(transformers, class_name, None)
    if not (inspect.isclass(encoder_class) and issubclass(encoder_class, PreTrainedModel)):
        raise InputError(f"Got the tower class {class_name!r}, which transformers {transformers.__version__} hasn't.")
    try:
        config = encoder_class.config_class(**settings)
        options = {"add_pooling_layer": False} if _has_trained_pooler(encoder_class, config) else {}
        return encoder_class._from_config(config, dtype=torch.float32, **options)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, StrictDataclassError) as error:
        raise InputError(f"{class_name} can't be built from its settings: {error}") from error


def _has_trained_pooler(encoder_class: type[PreTrainedModel], config: PreTrainedConfig) -> bool:
    if "add_pooling_layer" not in inspect.signature(encoder_class).parameters:
        return False
    with torch.device("meta"):
        pooler = encoder_class._from_config(config).pooler
    return pooler is not None and any(True for _ in pooler.parameters())


class Tower(nn.Module):
    """An encoder, and the pretrained projection of its vector where it has one (CLIP).

    Attributes:
        width: width of the vector.
        token_width: width of the tokens.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = build_encoder(settings["class_name"], settings["config"])
        self.token_width = _hidden_size(self.encoder.config)
        projection_dim = settings["projection_dim"]
        self.projection = None if projection_dim is None else nn.Linear(self.token_width, projection_dim, bias=False)
        self.width = projection_dim or self.token_width
        self._pads_texts = self.encoder.config.model_type in READ_AT_THE_END
        parameters = inspect.signature(self.encoder.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder on its own inputs (input_ids and attention_mask, or pixel_values).

        Returns:
            The vector (B, width): the encoder's pooled output where it has one, else its first token (CLS); projected
            where the tower has a projection. The tokens (B, S, token_width).
        """
        if self._pads_texts:
            return self._read_padded(inputs["input_ids"])
        return self._read(self.encoder(**inputs, **self._options))

    def _read_padded(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pad texts (B, L) to the one length that the encoder knows; the tokens are those of the given L again."""
        config, length = self.encoder.config, input_ids.shape[1]
        padding = config.max_position_embeddings - length
        vector, tokens = self._read(self.encoder(input_ids=F.pad(input_ids, (0, padding), value=config.pad_token_id)))
        return vector, tokens[:, :length]

    def _read(self, output: ModelOutput) -> tuple[Tensor, Tensor]:
        tokens = output.last_hidden_state
        if tokens.dim() == 4:  # convolutional encoders: (B, D, H, W)
            tokens = tokens.flatten(2).transpose(1, 2)
        pooled = output.get("pooler_output")
        vector = tokens[:, 0] if pooled is None else pooled.flatten(1)
        return vector if self.projection is None else self.projection(vector), tokens


def _hidden_size(config: PreTrainedConfig) -> int:
    """Width of an encoder's tokens; convolutional and staged encoders give a list of widths instead."""
    if hasattr(config, "hidden_size"):
        return config.hidden_size
    if hasattr(config, "hidden_sizes"):
        return config.hidden_sizes[-1]
    raise InputError(f"The settings of {type(config).__name__} tell no hidden_size; choose another encoder.")
