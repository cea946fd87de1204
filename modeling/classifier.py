"""The classifier: two towers and a fusion head, as a transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init

from .choices import frozen_modalities
from .configuration import SentimentConfig
from .errors import InputError
from .features import Features
from .fusion import TransformerLayer, get_fusion_head
from .output import SentimentOutput
from .sizes import bounded_build
from .state import describe_differences, without_reports
from .towers import Tower


class SentimentClassifier(PreTrainedModel):
    """Classifies pairs of text and picture; only the parts that the configured head uses are built.

    Shapes: B batch, L text tokens, H picture side, S sequence, D width, C classes.
    """

    config_class = SentimentConfig
    config: SentimentConfig
    base_model_prefix = "classifier"
    main_input_name = "input_ids"  # whose tokens --include_num_input_tokens_seen counts
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: SentimentConfig) -> None:
        super().__init__(config)
        with bounded_build("This model"):
            self._build(config)
        self._freeze()
        self._no_split_modules = self._layer_classes()
        self.post_init()

    def _build(self, config: SentimentConfig) -> None:
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

    def towers(self) -> dict[str, Tower]:
        """The towers that were built, under "text" and "image"."""
        towers = {"text": self.text_tower, "image": self.image_tower}
        return {kind: tower for kind, tower in towers.items() if tower is not None}

    def forward(
        self,
        *,
        text_present: Tensor,
        image_present: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        text_vector: Tensor | None = None,
        text_tokens: Tensor | None = None,
        text_hidden: Tensor | None = None,
        image_vector: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_hidden: Tensor | None = None,
        each_modality: bool = False,
    ) -> SentimentOutput:
        """Logits, and the mean cross-entropy where labels are given.

        Args:
            text_present, image_present: (B,) bool; False puts the learned missing-modality vector in its place.
            input_ids, attention_mask: (B, L) int64, padded on the right.
            pixel_values: (B, 3, H, H) uint8, as decoded; rescaled and normalised here and nowhere else.
            labels: (B,) int64, -100 is ignored.
            text_vector ... image_hidden: instead of inputs, what a frozen tower gave for them; see `encode_text`.
            each_modality: also judge the rows with the picture missing and with the text missing. No tower runs again.
                For heads with both modalities.

        Raises:
            TypeError: pixel_values aren't uint8.
        """
        text = self.encode_text(
            input_ids,
            attention_mask,
            text_present,
            text_vector=text_vector,
            text_tokens=text_tokens,
            text_hidden=text_hidden,
        )
        image = self.encode_image(
            pixel_values, image_present, image_vector=image_vector, image_tokens=image_tokens, image_hidden=image_hidden
        )
        logits = self.fuse(text, image)
        text_logits = image_logits = None
        if each_modality:
            absent = torch.zeros_like(text_present)
            text_logits = self.fuse(text, image.masked(absent, self.missing_image))
            image_logits = self.fuse(text.masked(absent, self.missing_text), image)
        return SentimentOutput(
            loss=None if labels is None else F.cross_entropy(logits.float(), labels),
            logits=logits,
            text_logits=text_logits,
            image_logits=image_logits,
            text_embeds=None if text is None else text.vector,
            image_embeds=None if image is None else image.vector,
        )

    def encode_text(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        text_present: Tensor,
        *,
        text_vector: Tensor | None = None,
        text_tokens: Tensor | None = None,
        text_hidden: Tensor | None = None,
    ) -> Features | None:
        """Text (B, L) -> features at the fusion width; None where the head uses no text.

        Args:
            input_ids, attention_mask: (B, L) int64; only a head that uses text tokens needs them beside text_vector.
            text_present: (B,) bool.
            text_vector: (B, D) the tower's vector, where the tower is frozen and ran before.
            text_tokens: (B, L, D) its tokens, where the head uses them.
            text_hidden: (B, S, D) the hidden states behind the frozen blocks, where only the last blocks are trained.
        """
        if self.text_tower is None:
            return None
        vector, tokens = self._cast(text_vector), self._cast(text_tokens)
        if vector is None:
            hidden = self._cast(text_hidden)
            vector, tokens = self.text_tower(input_ids=input_ids, attention_mask=attention_mask, hidden=hidden)
        mask = None if attention_mask is None else attention_mask.bool()
        features = _collect(self.text_align(vector), tokens, self.text_token_align, mask)
        return features.masked(text_present, self.missing_text)

    def encode_image(
        self,
        pixel_values: Tensor | None,
        image_present: Tensor,
        *,
        image_vector: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_hidden: Tensor | None = None,
    ) -> Features | None:
        """Pictures (B, 3, H, H) uint8 -> features at the fusion width; None where the head uses no pictures.

        Args:
            pixel_values: (B, 3, H, H) uint8; not needed beside image_vector or image_hidden.
            image_present: (B,) bool.
            image_vector, image_tokens, image_hidden: as those of `encode_text`, with patches for tokens.
        """
        if self.image_tower is None:
            return None
        vector, tokens = self._cast(image_vector), self._cast(image_tokens)
        if vector is None:
            hidden = self._cast(image_hidden)
            pixels = self.normalize(pixel_values) if hidden is None else self._stand_in(hidden)
            vector, tokens = self.image_tower(pixel_values=pixels, hidden=hidden)
        mask = None if tokens is None else torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        features = _collect(self.image_align(vector), tokens, self.image_token_align, mask)
        return features.masked(image_present, self.missing_image)

    def fuse(self, text: Features | None, image: Features | None) -> Tensor:
        """Features of B rows -> logits (B, C)."""
        return self.fusion(text, image)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, C) -> calibrated probabilities (B, C) in float32."""
        return (logits.float() / self.config.temperature).softmax(dim=-1)

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
        mean, std = (
            # Filled on the device: a copy from the host would wait for all that is queued there.
            torch.stack([torch.full((1, 1), value, device=pixel_values.device) for value in values])
            for values in (self.config.image_mean, self.config.image_std)
        )
        return ((pixel_values / 255.0 - mean) / std).to(self.image_tower.encoder.dtype)

    def get_input_embeddings(self) -> None:
        """None: FSDP asks every model, to shard them apart from its layers; ours are among `_layer_classes`."""

    @classmethod
    def from_pretrained(cls, name_or_path: str, *args: Any, **kwargs: Any) -> SentimentClassifier:
        """As in transformers, but a checkpoint must fit the model exactly.

        Raises:
            InputError: keys or sizes differ (it says which), or the weights file is damaged.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # The towers choose their own attention; one that a file names may be a compiled kernel of the hub.
        kwargs = {"dtype": torch.float32, "attn_implementation": "eager", "trust_remote_code": False} | kwargs
        try:
            with without_reports():
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
        for tower in model.towers().values():  # transformers 5 puts new parameters in the place of the built ones
            tower.take_gradients()
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
        named = {TransformerLayer.__name__}.union(
            *(tower.encoder._no_split_modules for tower in self.towers().values())
        )
        return named & {type(module).__name__ for module in self.modules()}

    def _freeze(self) -> None:
        towers = self.towers()
        for kind in frozen_modalities(self.config.freeze, self.config.unfreeze_last):
            if kind in towers:
                towers[kind].freeze(self.config.unfreeze_last)

    def _cast(self, cached: Tensor | None) -> Tensor | None:
        """Cached features in the type of the weights: DeepSpeed's half precision takes no other."""
        return None if cached is None else cached.to(next(self.fusion.parameters()).dtype)

    def _stand_in(self, hidden: Tensor) -> Tensor:
        """Pixels (B, 3, H, H) without memory, where the encoder wants to know the picture's size and nothing else."""
        size = self.config.picture["image_size"]
        return hidden.new_zeros(1).expand(len(hidden), 3, size, size)


def _map_width(tower: Tower, width: int, *, of_vector: bool = False) -> nn.Module:
    source = tower.width if of_vector else tower.token_width
    return nn.Identity() if source == width else nn.Linear(source, width, bias=False)


def _collect(vector: Tensor, tokens: Tensor | None, token_align: nn.Module | None, mask: Tensor | None) -> Features:
    """Vector (B, D), tokens (B, S, W), mask (B, S) -> features; the vector leads the tokens if a head wants those."""
    if token_align is None:
        return Features(vector)
    sequence = torch.cat([vector[:, None], token_align(tokens)], dim=1)
    return Features(vector, sequence, torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1))


AutoConfig.register(SentimentConfig.model_type, SentimentConfig)
AutoModel.register(SentimentConfig, SentimentClassifier)
