"""Tiny models of every architecture and head, from scratch, as the flags build them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ViTConfig,
    ViTModel,
    set_seed,
)

from data_utils.prepare.tokens import train_wordpiece
from data_utils.sources.arguments import DataArguments
from modeling.classifier import SentimentClassifier
from training.build.build import build_model
from training.build.plan import ModelPlan, plan_model
from training.flags.model import ModelArguments

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LABELS = ("negative", "neutral", "positive")
TEXTS = {"negative": "a bad day", "neutral": "some plain words", "positive": "a good day"}
TOKENIZER = train_wordpiece(["a good day", "a bad day", "some plain words"], vocab_size=60, max_length=16)
ARCHITECTURES = ("baseline", "vilbert", "clip")
IMAGE_SIZE = 32
_PLANS: dict[str, ModelPlan] = {}


def tiny_arguments(architecture: str = "clip", fusion: str | None = None, **options) -> ModelArguments:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if architecture != "clip" else {}
    return ModelArguments(
        model=architecture,
        fusion=fusion,
        **{
            "from_scratch": True,
            "text_config": SIZES | {"max_position_embeddings": 16} | dropout,
            "vision_config": SIZES | {"patch_size": 16},
            # Twice the width of the baseline's pictures, so that the layers between different widths exist there.
            "projection_dim": 16 if architecture == "clip" else None,
            "fusion_dropout": 0.0,
            **options,
        },
    )


def plan_of(arguments: ModelArguments, *, image_size: int | None = None, max_length: int | None = None) -> ModelPlan:
    """The plan for data that don't matter."""
    return plan_model(arguments, DataArguments(data_dir=".", image_size=image_size, max_length=max_length))


def save_encoders(folder: Path, *, dropout: float = 0.1) -> None:
    """Write text/ and vision/, encoders that pass for pretrained ones; the text's has dropout."""
    set_seed(0)
    options = SIZES | {"initializer_range": 0.5}  # or all rows would have nearly the same vector
    dropped = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    text = BertConfig(**options, **dropped, vocab_size=len(TOKENIZER), max_position_embeddings=16)
    BertModel(text).save_pretrained(folder / "text")
    TOKENIZER.save_pretrained(folder / "text")
    ViTModel(ViTConfig(**options, image_size=32, patch_size=16)).save_pretrained(folder / "vision")
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder / "vision")


def tiny_plan(arguments: ModelArguments) -> ModelPlan:
    """The plan of a tiny model; made once for all tests, as most of a tiny model's time goes into it."""
    key = repr(arguments)
    if key not in _PLANS:
        _PLANS[key] = plan_of(arguments, image_size=IMAGE_SIZE, max_length=16)
    return _PLANS[key]


def tiny_model(
    architecture: str = "clip", fusion: str | None = None, *, seed: int = 0, **options
) -> SentimentClassifier:
    arguments = tiny_arguments(architecture, fusion, **options)
    torch.manual_seed(seed)
    return build_model(tiny_plan(arguments), arguments, tokenizer=TOKENIZER, labels=LABELS, text_cleaning="report")


def save_clip(folder: Path) -> CLIPModel:
    """Write a folder with a tiny CLIP, its tokenizer and its picture processor; returns the model."""
    text = SIZES | {"vocab_size": len(TOKENIZER), "eos_token_id": TOKENIZER.sep_token_id}
    vision = SIZES | {"image_size": IMAGE_SIZE, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    save_processor(folder)
    return model


def save_processor(folder: Path) -> None:
    """Write the picture processor of a tiny encoder."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)


def tiny_batch(batch_size: int = 4, *, seed: int = 0) -> dict[str, Tensor]:
    """Rows with all modalities; texts of 4 to 7 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [4 + row % 4 for row in range(batch_size)]
    input_ids = torch.full((batch_size, max(lengths)), TOKENIZER.pad_token_id)
    for row, length in enumerate(lengths):
        words = torch.randint(5, len(TOKENIZER), (length - 2,), generator=generator)
        input_ids[row, :length] = torch.tensor([TOKENIZER.cls_token_id, *words.tolist(), TOKENIZER.sep_token_id])
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != TOKENIZER.pad_token_id).long(),
        "pixel_values": torch.randint(
            0, 256, (batch_size, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8
        ),
        "text_present": torch.ones(batch_size, dtype=torch.bool),
        "image_present": torch.ones(batch_size, dtype=torch.bool),
    }
