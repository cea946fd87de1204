"""Towers: one encoder of transformers each, read out as a vector and as tokens."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .choices import check_width
from .errors import InputError, reason_of
from .frozen import FrozenBlocks, cut_blocks
from .kernels import ATTENTION, replace_patch_convolutions
from .loading import bounded_build, check_sizes, drop_code

# SigLIP reads a text from its last position, and was trained on texts padded to one length, without a mask.
READ_AT_THE_END = ("siglip_text_model", "siglip2_text_model")


def build_encoder(class_name: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A randomly initialised encoder of a transformers class, of torch's default type: float32, if nobody changed it.

    A pooler with weights (BERT's, ViT's) is left out: it belongs to a pretraining task, and CLS serves instead. One
    without weights stays: it is the mean by which encoders without CLS are read.
    """
    encoder_class: Any = getattr(transformers, class_name, None)
    if PreTrainedModel not in getattr(encoder_class, "__mro__", ()):
        raise InputError(f"Got the tower class {class_name!r}, which transformers {transformers.__version__} hasn't.")
    check_sizes(settings, f"The {class_name} of the settings")
    try:
        config = encoder_class.config_class(**settings)
        drop_code(config)
        takes_pooler = "add_pooling_layer" in inspect.signature(encoder_class).parameters
        has_pooler = takes_pooler and _has_trained_pooler(encoder_class, config.to_json_string())
        options: dict[str, Any] = {"add_pooling_layer": False} if has_pooler else {}
        if encoder_class._supports_attention_backend and encoder_class._supports_sdpa:
            options["attn_implementation"] = ATTENTION
        with bounded_build(class_name):
            encoder = encoder_class._from_config(config, dtype=torch.get_default_dtype(), **options)
    except InputError:
        raise
    except Exception as error:  # any: another library's code on settings that anybody may have written
        raise InputError(f"{class_name} can't be built from its settings: {reason_of(error)}") from error
    replace_patch_convolutions(encoder)
    return encoder


@lru_cache(maxsize=8)  # a start builds a tower three times: laid out, tried, and with its weights
def _has_trained_pooler(encoder_class: type[PreTrainedModel], settings: str) -> bool:
    with torch.device("meta"), bounded_build(encoder_class.__name__):
        encoder = encoder_class._from_config(encoder_class.config_class(**json.loads(settings)))
    pooler = getattr(encoder, "pooler", None)
    return pooler is not None and any(True for _ in pooler.parameters())


class Tower(nn.Module):
    """An encoder, and the pretrained projection of its vector where it has one (CLIP).

    The vector is what the encoder offers: its pooled output, else its first token (CLS). With the pooling "mean" it is
    the mean of the tokens that are no padding (Reimers and Gurevych 2019, section 3), as of a picture without CLS. With
    feature_layers it is made of those vectors behind several blocks (0: the embeddings), each brought to mean 0 and
    variance 1, side by side: what lower blocks know of a picture, its texture and mood, the last one may have thrown
    away.

    Attributes:
        width: width of the vector.
        token_width: width of the tokens.
        pads_texts: whether the encoder reads texts of one length only, to which they are padded here.
        is_frozen: whether nothing of it is trained.
        frozen_blocks: its frozen part where only its last blocks are trained; else it has none.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        """Of settings that are plain JSON, so that no hub is needed to build the tower again.

        Args:
            settings: class_name and config of an encoder of transformers; projection_dim, None without a pretrained
                projection; and, where they differ from the usual, pooling (default or mean), feature_layers and
                token_width.
        """
        super().__init__()
        self.encoder = build_encoder(settings["class_name"], settings["config"])
        token_width = settings.get("token_width") or hidden_size(self.encoder.config)
        if token_width is None:
            name = type(self.encoder.config).__name__
            raise InputError(f"The settings of {name} tell no hidden_size; choose another encoder.")
        self.token_width: int = token_width
        projection_dim = settings["projection_dim"]
        check_width("projection_dim", projection_dim)
        self.projection = None if projection_dim is None else nn.Linear(self.token_width, projection_dim, bias=False)
        self.pooling = settings.get("pooling", "default")
        self.feature_layers = _number_layers(self.encoder, settings.get("feature_layers"))
        self.width = projection_dim or self.token_width * max(1, len(self.feature_layers))
        self.is_frozen = False
        self.frozen_blocks = FrozenBlocks(self.encoder)
        self.pads_texts = self.encoder.config.model_type in READ_AT_THE_END
        self._options = own_options(self.encoder)

    def forward(self, *, hidden: Tensor | None = None, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder on its own inputs (input_ids and attention_mask, or pixel_values).

        Args:
            hidden: (B, S, token_width) what `run_frozen` gave for these inputs; then only the rest is computed.

        Returns:
            The vector (B, width), projected where the tower has a projection. The tokens (B, S, token_width).
        """
        options = {"output_hidden_states": True} if self.feature_layers else {}
        with nullcontext() if hidden is None else self.frozen_blocks.skipped(hidden):
            vector, tokens = self._read(self.encoder(**self._complete(inputs), **options), inputs.get("attention_mask"))
        return vector, tokens[:, : inputs["input_ids"].shape[1]] if self.pads_texts else tokens

    def freeze(self, unfreeze_last: int | None = None) -> None:
        """Freeze the tower, or all that comes before its last `unfreeze_last` blocks."""
        if unfreeze_last is None:
            self.is_frozen = True
        elif self.feature_layers and self.feature_layers != (self.encoder.config.num_hidden_layers,):
            raise InputError(
                f"Got --unfreeze_last {unfreeze_last} and --vision_feature_layer, which reads blocks that would not be "
                "computed; leave one of them out."
            )
        else:
            self.frozen_blocks = cut_blocks(self.encoder, unfreeze_last)
        self.freeze_parameters()

    def freeze_parameters(self) -> None:
        """Mark the parameters of what is frozen as not trained."""
        if self.is_frozen:
            self.requires_grad_(False)
        self.frozen_blocks.freeze_parameters()

    def run_frozen(self, **inputs: Tensor) -> Tensor:
        """The hidden states (B, S, token_width) behind the frozen blocks; see `forward` for the inputs."""
        return self.frozen_blocks.run(self._complete(inputs))

    def frozen_weights(self) -> dict[str, Tensor]:
        """All that decides what the frozen part makes of an input."""
        return self.state_dict() if self.is_frozen else self.frozen_blocks.weights()

    def train(self, mode: bool = True) -> Tower:
        """As in torch, but what is frozen stays in evaluation mode: its output doesn't change, so no dropout either."""
        super().train(mode and not self.is_frozen)
        self.frozen_blocks.stop_dropout()
        return self

    def _complete(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """The encoder's inputs; texts (B, L) padded to the one length that it knows, where it knows only one."""
        if not self.pads_texts:
            return {**inputs, **self._options}
        config, input_ids = self.encoder.config, inputs["input_ids"]
        padding = config.max_position_embeddings - input_ids.shape[1]
        return {"input_ids": F.pad(input_ids, (0, padding), value=config.pad_token_id)}

    def _read(self, output: ModelOutput, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = lay_out_tokens(output.last_hidden_state)
        pooled = output.get("pooler_output")
        vector = self._pool(tokens, mask) if pooled is None or self.pooling == "mean" else pooled.flatten(1)
        if self.feature_layers:
            last = len(output["hidden_states"]) - 1  # behind the last block its own norm follows, in the vector
            layers = [self._pool(output["hidden_states"][n], None) if n < last else vector for n in self.feature_layers]
            vector = torch.cat([F.layer_norm(layer, layer.shape[-1:]) for layer in layers], dim=-1)
        return vector if self.projection is None else self.projection(vector), tokens

    def _pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if self.pooling == "default":
            return tokens[:, 0]
        weights = torch.ones_like(tokens[..., 0]) if mask is None else mask.to(tokens.dtype)
        return (tokens * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)


def _number_layers(encoder: PreTrainedModel, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of blocks from 0 (the embeddings) on; negative ones count from the end, as in transformers."""
    if wanted is None:
        return ()
    name, count = type(encoder).__name__, getattr(encoder.config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise InputError(f"Got --vision_feature_layer, but {name} is no stack of equal blocks; leave it out.")
    layers = tuple(number + count + 1 if number < 0 else number for number in wanted)
    if not layers or len(set(layers)) < len(layers) or not all(0 <= number <= count for number in layers):
        raise InputError(
            f"Got --vision_feature_layer {' '.join(map(str, wanted))}; {name} has the layers 0 (embeddings) to "
            f"{count}, each of which can be named once."
        )
    return layers


def hidden_size(config: PreTrainedConfig) -> int | None:
    """Width of an encoder's tokens, if its settings tell; convolutional and staged ones give a list of widths."""
    if hasattr(config, "hidden_size"):
        return config.hidden_size
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else None


def own_options(encoder: PreTrainedModel) -> dict[str, Any]:
    """What the encoder's forward is told beside its inputs: pictures may be of another size than in pretraining."""
    takes = "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters
    return {"interpolate_pos_encoding": True} if takes else {}


def lay_out_tokens(states: Tensor) -> Tensor:
    """Tokens (B, S, D) of a last hidden state: those of convolutional encoders are a map (B, D, H, W)."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states
