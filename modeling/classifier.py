"""The classifier: two towers and a fusion head, as a transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from data_utils.errors import InputError
from modeling.configuration import SentimentConfig
from modeling.features import Features
from modeling.fusion import TransformerLayer, get_fusion_head
from modeling.state import describe_differences
from modeling.towers import Tower


@dataclass
class SentimentOutput(ModelOutput):
    """loss () or None; logits (B, C); text_embeds and image_embeds (B, D) before fusion, None for an unused tower."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None


class SentimentClassifier(PreTrainedModel):
    """Classifies pairs of text and picture; only the parts that the configured head uses are built.

    Shapes: B batch, L text tokens, H picture side, S sequence, D width, C classes.
    """

    config_class = SentimentConfig
    config: SentimentConfig
    base_model_prefix = "classifier"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: SentimentConfig) -> None:
        super().__init__(config)
        head_class = get_fusion_head(config.fusion)
        self.text_tower = Tower(config.text_tower) if head_class.uses_text else None
        self.image_tower = Tower(config.vision_tower) if head_class.uses_image else None
        width = config.align_dim or (self.text_tower or self.image_tower).width
        self.text_align = self._align(self.text_tower, width)
        self.image_align = self._align(self.image_tower, width)
        self.text_token_align = _map_width(self.text_tower, width) if head_class.uses_text_tokens else None
        self.image_token_align = _map_width(self.image_tower, width) if head_class.uses_image_tokens else None
        # What stands for a modality that isn't there (or is dropped in training), learned like any weight.
        self.missing_text = nn.Parameter(torch.zeros(width)) if head_class.uses_text else None
        self.missing_image = nn.Parameter(torch.zeros(width)) if head_class.uses_image else None
        self.fusion = head_class(width, config.num_labels, dropout=config.fusion_dropout)
        self._freeze()
        self._no_split_modules = self._layer_classes()
        self.post_init()

    def should_save_on_this_rank(self, is_main_process: bool) -> bool:
        """As the caller says: transformers' own lets rank 0 alone write, also where each machine needs a copy."""
        return is_main_process

    @property
    def uses_text(self) -> bool:
        """Whether the head reads texts."""
        return self.text_tower is not None

    @property
    def uses_image(self) -> bool:
        """Whether the head reads pictures."""
        return self.image_tower is not None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        text_present: Tensor,
        image_present: Tensor,
        labels: Tensor | None = None,
    ) -> SentimentOutput:
        """Logits, and the mean cross-entropy where labels are given.

        Args:
            input_ids, attention_mask: (B, L) int64.
            pixel_values: (B, 3, H, H) uint8, as decoded; rescaled and normalised here and nowhere else.
            text_present, image_present: (B,) bool; False puts the learned missing-modality vector in its place.
            labels: (B,) int64, -100 is ignored.

        Raises:
            TypeError: pixel_values aren't uint8.
        """
        text = self.encode_text(input_ids, attention_mask, text_present)
        image = self.encode_image(pixel_values, image_present)
        logits = self.fuse(text, image)
        return SentimentOutput(
            loss=None if labels is None else F.cross_entropy(logits.float(), labels),
            logits=logits,
            text_embeds=None if text is None else text.vector,
            image_embeds=None if image is None else image.vector,
        )

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor, text_present: Tensor) -> Features | None:
        """Text (B, L) -> features at the fusion width; None where the head uses no text."""
        if self.text_tower is None:
            return None
        vector, tokens = self.text_tower(input_ids=input_ids, attention_mask=attention_mask)
        features = _collect(self.text_align(vector), tokens, self.text_token_align, attention_mask.bool())
        return features.masked(text_present, self.missing_text)

    def encode_image(self, pixel_values: Tensor, image_present: Tensor) -> Features | None:
        """Pictures (B, 3, H, H) uint8 -> features at the fusion width; None where the head uses no pictures."""
        if self.image_tower is None:
            return None
        vector, tokens = self.image_tower(pixel_values=self.normalize(pixel_values))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        features = _collect(self.image_align(vector), tokens, self.image_token_align, mask)
        return features.masked(image_present, self.missing_image)

    def fuse(self, text: Features | None, image: Features | None) -> Tensor:
        """Features of B rows -> logits (B, C)."""
        return self.fusion(text, image)

    def normalize(self, pixel_values: Tensor) -> Tensor:
        """uint8 pixels (B, 3, H, H) -> (x / 255 - mean) / std in the tower's dtype.

        Raises:
            TypeError: the pixels aren't uint8: rescaled twice they would all but vanish, without an error anywhere.
        """
        if pixel_values.dtype != torch.uint8:
            raise TypeError(
                f"pixel_values are {pixel_values.dtype}; the model rescales and normalises by itself and takes only "
                "uint8 (0..255). Pass the decoded picture, not the output of an image processor."
            )
        mean = torch.tensor(self.config.image_mean, device=pixel_values.device)[:, None, None]
        std = torch.tensor(self.config.image_std, device=pixel_values.device)[:, None, None]
        return ((pixel_values / 255.0 - mean) / std).to(self.image_tower.encoder.dtype)

    def get_input_embeddings(self) -> None:
        """None: FSDP asks every model, to shard them apart from its layers; ours are among `_layer_classes`."""

    def train(self, mode: bool = True) -> SentimentClassifier:
        """As in torch, but a frozen tower stays in evaluation mode: its features don't change, so no dropout either."""
        super().train(mode)
        for tower in self._frozen_towers():
            tower.eval()
        return self

    @classmethod
    def from_pretrained(cls, name_or_path: str, *args: Any, **kwargs: Any) -> SentimentClassifier:
        """As in transformers, but a checkpoint must fit the model exactly.

        Raises:
            InputError: keys or sizes differ (it says which), or the weights file is damaged.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("dtype", torch.float32)
        try:
            model, info = super().from_pretrained(
                name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        except SafetensorError as error:
            raise InputError(
                f"The weights in {name_or_path} are damaged ({error}); copy or train them again."
            ) from error
        differences = describe_differences(info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
        if differences:
            raise InputError(f"The weights in {name_or_path} don't fit its model. {differences}")
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """As in transformers, under the keys of `state_dict`.

        By default transformers 5 renames the towers' keys to those of older checkpoints (DINOv2's, for one), which
        Trainer, loading its best or latest checkpoint by `load_state_dict`, doesn't find again.
        """
        super().save_pretrained(save_directory, **(kwargs | {"save_original_format": False}))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SentimentClassifier):
            for vector in (module.missing_text, module.missing_image):
                if vector is not None:
                    init.normal_(vector, mean=0.0, std=self.config.initializer_range)

    def _align(self, tower: Tower | None, width: int) -> nn.Module | None:
        """The layer that brings a tower's vector to the fusion width; a composed dual encoder always has one."""
        if tower is not None and self.config.align_dim is not None:
            return nn.Linear(tower.width, width, bias=False)
        return None if tower is None else _map_width(tower, width, of_vector=True)

    def _layer_classes(self) -> set[str]:
        """Names of the modules that FSDP shards as one: the towers' and ours, without those that aren't built."""
        towers = [tower for tower in (self.text_tower, self.image_tower) if tower is not None]
        named = {TransformerLayer.__name__}.union(*(tower.encoder._no_split_modules for tower in towers))
        return named & {type(module).__name__ for module in self.modules()}

    def _frozen_towers(self) -> list[Tower]:
        frozen = {"none": (), "text": (self.text_tower,), "image": (self.image_tower,)}
        towers = frozen.get(self.config.freeze, (self.text_tower, self.image_tower))
        return [tower for tower in towers if tower is not None]

    def _freeze(self) -> None:
        for tower in self._frozen_towers():
            tower.requires_grad_(False)


def _map_width(tower: Tower, width: int, *, of_vector: bool = False) -> nn.Module:
    source = tower.width if of_vector else tower.token_width
    return nn.Identity() if source == width else nn.Linear(source, width, bias=False)


def _collect(vector: Tensor, tokens: Tensor, token_align: nn.Module | None, mask: Tensor) -> Features:
    """Vector (B, D), tokens (B, S, W), mask (B, S) -> features; the vector leads the tokens if a head wants those."""
    if token_align is None:
        return Features(vector)
    sequence = torch.cat([vector[:, None], token_align(tokens)], dim=1)
    return Features(vector, sequence, torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1))


def parameter_table(model: SentimentClassifier) -> Mapping[str, int]:
    """Number of parameters by part: text, image (towers), fusion, head (classifier layers), total and trainable."""
    table = dict.fromkeys(("text", "image", "fusion", "head", "total", "trainable"), 0)
    for name, parameter in model.named_parameters():
        # Under ZeRO-3 a parameter is an empty shell that knows its whole size.
        size = getattr(parameter, "ds_numel", parameter.numel())
        table[_part_of(name)] += size
        table["total"] += size
        table["trainable"] += size * parameter.requires_grad
    return table


def _part_of(name: str) -> str:
    for prefix, part in (("text_tower.", "text"), ("image_tower.", "image"), ("fusion.classifier", "head")):
        if name.startswith(prefix):
            return part
    return "fusion"


AutoConfig.register(SentimentConfig.model_type, SentimentConfig)
AutoModel.register(SentimentConfig, SentimentClassifier)
