"""Flags that choose the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from data_utils.console.command_line import flag
from modeling.choices import (
    ARCHITECTURES,
    FREEZE_CHOICES,
    FUSIONS,
    PICTURE_POOLINGS,
    POOLINGS,
    check_width,
    frozen_modalities,
)
from modeling.errors import InputError, check_choice

logger = logging.getLogger(__name__)
DEFAULT_FUSION = {"baseline": "cross_attn", "vilbert": "transformer", "clip": "attn"}
DEFAULT_TEXT_NAME = "bert-base-uncased"
DEFAULT_VISION_NAME = "google/vit-base-patch16-224-in21k"
DEFAULT_CLIP_NAME = "openai/clip-vit-base-patch32"
MAX_VOCABULARY = 1_000_000
# Of --lora_targets, what stands for the names of layers.
AUTO, ALL_LINEAR = "auto", "all-linear"


@dataclass(frozen=True)
class ModelArguments:
    """Which architecture, head and towers. Checked before anything is loaded."""

    group: ClassVar[str] = "model"

    model: str = flag("clip", f"Architecture: {', '.join(ARCHITECTURES)}.")
    fusion: str = flag(None, f"Fusion head: {', '.join(FUSIONS)}. Default by architecture: {DEFAULT_FUSION}.")
    clip_name: str | None = flag(
        None, f"Folder or hub name of a CLIP, SigLIP, ... Default of clip: {DEFAULT_CLIP_NAME}."
    )
    text_name: str | None = flag(
        None, f"Folder or hub name of a text encoder, for vilbert ({DEFAULT_TEXT_NAME}), or clip with --vision_name."
    )
    vision_name: str | None = flag(
        None, f"Folder or hub name of a picture encoder. vilbert's default: {DEFAULT_VISION_NAME}."
    )
    trust_remote_code: bool = flag(
        False, "Run program code of the named folders or hub names. Read it first: it can do all that you can."
    )
    from_scratch: bool = flag(
        False,
        "Random weights; no hub. With a name: that model's structure and tokenizer; without one the architecture's "
        "default size, and a WordPiece tokenizer trained on the training split.",
    )
    text_config: dict[str, Any] = flag(
        None, "JSON object of settings over the text encoder's: '{\"num_hidden_layers\": 2}'."
    )
    vision_config: dict[str, Any] = flag(None, "JSON object of settings over the picture encoder's.")
    projection_dim: int | None = flag(
        None, "Width of the space that clip's text and picture share. Default: the model's, or 512."
    )
    text_pooling: str = flag(
        "default", "The vector of a text: default, the encoder's own (pooled output, else CLS), or mean."
    )
    vision_feature_layer: list[int] = flag(
        None, "Layers whose vectors make that of a picture, from 0 (the embeddings) or from the end (-1)."
    )
    picture_pooling: str = flag(
        "mean", "Of rows with several pictures, the vector: mean, or attention with a learned query."
    )
    vocab_size: int = flag(21_500, "Upper limit of a tokenizer trained here.")
    lowercase: bool = flag(True, "A tokenizer trained here takes capitals as small letters; it keeps accents.")
    fusion_dropout: float = flag(0.1, "Dropout inside the fusion head.")
    freeze: str = flag("none", f"Towers that stay as they were loaded: {', '.join(FREEZE_CHOICES)}.")
    unfreeze_last: int | None = flag(
        None, "Train the last N blocks of the frozen towers; with --freeze none: of both, and freeze the rest."
    )
    # None where it isn't given: then on where no used tower trains at all.
    cache_features: bool = flag(
        None, "Run what is frozen once, into the cache. Default: on where no used tower trains at all."
    )
    lora_rank: int | None = flag(
        None, "Train adapters of this rank in the towers (LoRA, by peft), whose own weights stay as they were loaded."
    )
    lora_alpha: int | None = flag(None, "What adapters add counts this by --lora_rank times. Default: twice that.")
    lora_targets: list[str] = flag(
        [AUTO], "Layers that get adapters: auto (peft's choice for the family, else attention), all-linear, or names."
    )

    def __post_init__(self) -> None:
        check_choice("--model", self.model, ARCHITECTURES)
        object.__setattr__(self, "fusion", self.fusion or DEFAULT_FUSION[self.model])
        check_choice("--fusion", self.fusion, FUSIONS)
        check_choice("--freeze", self.freeze, FREEZE_CHOICES)
        check_choice("--text_pooling", self.text_pooling, POOLINGS)
        check_choice("--picture_pooling", self.picture_pooling, PICTURE_POOLINGS)
        if self.picture_pooling != "mean" and "image" not in self.modalities:
            raise InputError(f"Got --picture_pooling with --fusion {self.fusion}, which reads none; leave it out.")
        for name in ("text_config", "vision_config"):
            object.__setattr__(self, name, getattr(self, name) or {})
        if not 0 <= self.fusion_dropout < 1:
            raise InputError(f"Got --fusion_dropout {self.fusion_dropout}; it must be at least 0 and under 1.")
        if not 10 <= self.vocab_size <= MAX_VOCABULARY:
            raise InputError(f"Got --vocab_size {self.vocab_size}; allowed are 10 to {MAX_VOCABULARY}.")
        check_width("--projection_dim", self.projection_dim)
        self._check_freezing()
        self._check_names()
        self._check_adapters()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of "text" and "image" those that the head reads."""
        return FUSIONS[self.fusion]

    @property
    def trains_no_tower(self) -> bool:
        """Whether every tower that the head uses is frozen wholly."""
        frozen = frozen_modalities(self.freeze, self.unfreeze_last)
        return self.unfreeze_last is None and set(self.modalities).issubset(frozen)

    def _check_freezing(self) -> None:
        if self.unfreeze_last is not None and self.unfreeze_last < 1:
            raise InputError(f"Got --unfreeze_last {self.unfreeze_last}; it must be at least 1, or left out.")
        frozen = frozen_modalities(self.freeze, self.unfreeze_last)
        if self.cache_features and not set(self.modalities).intersection(frozen):
            raise InputError(f"Got --cache_features, but --fusion {self.fusion} uses no frozen tower; see --freeze.")
        if frozen and (self.from_scratch or self.model == "baseline"):
            logger.warning("Frozen towers with random weights (%s) will never learn anything.", " and ".join(frozen))

    def _check_names(self) -> None:
        """A dual encoder, or an encoder for each modality that is read; no name where nothing is loaded."""
        names = {"--clip_name": self.clip_name, "--text_name": self.text_name, "--vision_name": self.vision_name}
        given = [flag for flag, name in names.items() if name is not None]
        if self.model == "baseline" and given:
            raise InputError(f"Got {given[0]} with --model baseline, which is trained from scratch; use another model.")
        if self.model == "vilbert" and self.clip_name is not None:
            raise InputError("Got --clip_name with --model vilbert; take --text_name, --vision_name, or --model clip.")
        if self.clip_name is not None and len(given) > 1:
            raise InputError(f"Got {', '.join(given)}; give either --clip_name or the names of two encoders.")
        read_alone = {"text_only": ["--text_name"], "image_only": ["--vision_name"]}.get(self.fusion)
        if self.model == "clip" and self.clip_name is None and len(given) == 1 and given != read_alone:
            raise InputError(
                f"Got {given[0]} alone with --model clip --fusion {self.fusion}; a dual encoder is composed of "
                "--text_name and --vision_name, and --clip_name takes a whole one."
            )

    def _check_adapters(self) -> None:
        """They need towers that have learned something, and whose own weights nothing else is to train."""
        if self.lora_rank is None:
            return
        got = f"Got --lora_rank {self.lora_rank}"
        if self.from_scratch or self.model == "baseline":
            scratch = "--model baseline" if self.model == "baseline" else "--from_scratch"
            raise InputError(f"{got} and {scratch}, whose towers have learned nothing to adapt; leave one of them out.")
        if self.unfreeze_last is not None:
            raise InputError(
                f"{got} and --unfreeze_last, which trains what adapters leave as it is; leave one of them out."
            )
        if self.trains_no_tower:
            raise InputError(
                f"{got} and --freeze {self.freeze}, by which no tower of --fusion {self.fusion} is to be adapted; "
                "leave one of them out."
            )
        if find_spec("peft") is None:
            raise InputError(f"{got}, which needs the package peft: pip install peft.")
        if self.lora_alpha is None:
            object.__setattr__(self, "lora_alpha", 2 * self.lora_rank)
