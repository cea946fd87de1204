"""Every model family of transformers, made small: its configuration, and a folder with a tiny model of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tiny import IMAGE_SIZE, LABELS, TOKENIZER, plan_of, tiny_batch
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    CLIPImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from modeling.classifier import SentimentClassifier
from training.build.build import build_model
from training.flags.model import ModelArguments

FAMILIES = sorted(MODEL_MAPPING_NAMES)
MAX_WEIGHTS = 30_000_000
WIDTH, HEADS = 32, 2
WIDE = (
    "hidden_size d_model embed_dim dim emb_dim n_embd embedding_size word_embed_proj_dim projection_dim embedding_dim "
    "hidden_dim encoder_hidden_size"
)
WIDER = (
    "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff d_inner n_inner ffn_hidden_size "
    "moe_intermediate_size mlp_dim"
)
COUNTED = (
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers num_encoder_layers "
    "num_hidden_groups num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_key_value_heads num_kv_heads num_experts num_local_experts n_routed_experts"
)
SMALL: dict[str, Any] = {  # settings by their usual names, of which each family has some
    **dict.fromkeys(WIDE.split(), WIDTH),
    **dict.fromkeys(WIDER.split(), 2 * WIDTH),
    **dict.fromkeys(COUNTED.split(), HEADS),
    **dict.fromkeys(("head_dim", "d_head", "d_kv"), WIDTH // HEADS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length"), 40),
    **dict.fromkeys(("vocab_size", "entity_vocab_size"), len(TOKENIZER)),
    "image_size": IMAGE_SIZE,
    "window_size": 4,
}
LISTS = {"depths": 1, "num_heads": 2, "num_attention_heads": 2} | dict.fromkeys(
    ("hidden_sizes", "embed_dims", "encoder_hidden_sizes"), 16
)
TOKENS = {
    "pad_token_id": TOKENIZER.pad_token_id,
    "bos_token_id": TOKENIZER.cls_token_id,
    "eos_token_id": TOKENIZER.sep_token_id,
}
SWIN = {"depths": [1, 1], "num_heads": [2, 2], "hidden_size": None}
# What belongs together in some families.
TOGETHER: dict[str, dict[str, Any]] = {
    "esm": {"vocab_size": len(TOKENIZER), "mask_token_id": TOKENIZER.mask_token_id},
    "xlnet": {"d_inner": 64, "d_head": None},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [5, 8], "attn_layers": ["local", "lsh"]},
    "funnel": {"block_sizes": [1, 1, 1], "num_decoder_layers": 1, "num_hidden_layers": None},
    "swin": SWIN,
    "swinv2": SWIN,
    "donut-swin": SWIN,
    "focalnet": {"hidden_sizes": [32, 64, 128, 256]},
    "bit": {"hidden_sizes": [32, 32, 32, 32], "embedding_size": 32},
}


def small_config(family: str) -> PreTrainedConfig:
    """The family's configuration at a small size."""
    config_class = CONFIG_MAPPING[family]
    settings = _small_settings(config_class()) | TOGETHER.get(family, {})
    config = config_class(**{key: value for key, value in settings.items() if value is not None})
    classes = MODEL_MAPPING[config_class]
    config.architectures = [classes[0].__name__] if isinstance(classes, tuple) else None
    return config


def save_family(config: PreTrainedConfig, folder: Path) -> type[PreTrainedModel]:
    """A folder with a tiny model, a tokenizer and a picture processor; returns the model's class.

    Raises:
        ValueError: at these settings it is not tiny.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        size = AutoModel.from_config(config).num_parameters()
    if size > MAX_WEIGHTS:
        raise ValueError(f"{size} weights")
    model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.model_max_length = 512  # so that the tower's own limit holds
    tokenizer.save_pretrained(folder)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size=side, do_center_crop=False).save_pretrained(folder)
    return type(model)


def flags_for(config: PreTrainedConfig, model_class: type[PreTrainedModel], folder: Path) -> dict[str, Any]:
    """The flags that make a tower of it: by the part of the pair that it reads, a dual encoder as a whole."""
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        return {"model": "clip", "fusion": "co_attn", "clip_name": str(folder)}
    if model_class.main_input_name == "pixel_values":
        return {"model": "vilbert", "fusion": "image_only", "vision_name": str(folder)}
    return {"model": "vilbert", "fusion": "text_only", "text_name": str(folder)}


def train_and_save(flags: dict[str, Any], folder: Path) -> SentimentClassifier:
    """Plan, build, make one step, save and load; returns the model.

    Raises:
        InputError: the family is refused.
    """
    arguments = ModelArguments(**flags)
    plan = plan_of(arguments)
    torch.manual_seed(0)
    model = build_model(plan, arguments, tokenizer=TOKENIZER, labels=LABELS, text_cleaning="report")
    batch, labels = tiny_batch(), torch.tensor([0, 1, 2, 0])
    if model.text_tower is not None:  # as long as it may be
        longest = torch.full((1, plan.max_length), 7)
        present = batch["text_present"][:1]
        model.encode(
            "text", {"input_ids": longest, "attention_mask": torch.ones_like(longest), "text_present": present}
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    loss = model(**batch, labels=labels).loss
    loss.backward()
    torch.optim.SGD(trained, lr=0.1).step()
    assert loss.isfinite()
    assert any(not torch.equal(*pair) for pair in zip(before, trained, strict=True))
    model.save_pretrained(folder)
    again = SentimentClassifier.from_pretrained(folder)
    with torch.no_grad():
        logits, expected = again.eval()(**batch).logits, model.eval()(**batch).logits
    torch.testing.assert_close(logits, expected)
    return model


def _small_settings(config: PreTrainedConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        part = getattr(config, key, None)
        if isinstance(part, PreTrainedConfig):
            settings[key] = _small_settings(part)
        elif key in TOKENS:
            settings[key] = TOKENS[key]
        elif isinstance(value, list) and key in LISTS:
            settings[key] = [LISTS[key] for _ in value]
        elif key == "patch_size" and isinstance(value, int):
            settings[key] = value if value < 8 else IMAGE_SIZE // 2
        elif isinstance(value, int) and not isinstance(value, bool) and key in SMALL:
            settings[key] = min(value, SMALL[key])
    return settings
