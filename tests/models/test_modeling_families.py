"""Encoders of many families as towers: what is read out, what gets a gradient, what padding changes."""

import pytest
import torch
import transformers
from transformers import AutoModel

from modeling.towers import Tower
from training.build.tower_plan import TowerPlan

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"vocab_size": 50, "max_position_embeddings": 24, "pad_token_id": 1}
TEXT_CONFIGS = {
    "bert": transformers.BertConfig(**SMALL, **TEXT),
    "roberta": transformers.RobertaConfig(**SMALL, **TEXT),
    "distilbert": transformers.DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=2, **TEXT),
    "clip": transformers.CLIPTextConfig(**SMALL, **TEXT, eos_token_id=3, bos_token_id=0),
    "siglip": transformers.SiglipTextConfig(**SMALL, **TEXT),
    "chinese_clip": transformers.ChineseCLIPTextConfig(**SMALL, **TEXT),
}
TEXT_CLASSES = {"siglip": transformers.SiglipTextModel, "chinese_clip": transformers.ChineseCLIPTextModel}
PICTURE = {"image_size": 32, "patch_size": 16}
PICTURE_CONFIGS = {
    "vit": transformers.ViTConfig(**SMALL, **PICTURE),
    "dinov2": transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **PICTURE),
    "clip": transformers.CLIPVisionConfig(**SMALL, **PICTURE),
    "siglip": transformers.SiglipVisionConfig(**SMALL, **PICTURE),
    "swin": transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], image_size=32),
}


def build_tower(config, encoder_class=None):
    encoder_class = encoder_class or AutoModel._model_mapping[type(config)]
    torch.manual_seed(0)
    return Tower(TowerPlan(encoder_class, config).settings())


def text_batch():
    """Two texts, of 6 and of 4 tokens, that end with token 3; padding is 1."""
    input_ids = torch.tensor([[0, 5, 6, 7, 8, 3], [0, 9, 10, 3, 1, 1]])
    return {"input_ids": input_ids, "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2])}


@pytest.mark.parametrize("family", TEXT_CONFIGS)
def test_text_tower_reads_vector_and_tokens_whatever_the_padding_without_unused_parameters(family):
    tower, batch = build_tower(TEXT_CONFIGS[family], TEXT_CLASSES.get(family)).eval(), text_batch()
    vector, tokens = tower(**batch)
    assert vector.shape == (2, tower.width)
    assert tokens.shape == (2, 6, tower.token_width)
    vector.sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []
    padded = {
        name: torch.nn.functional.pad(values, (0, 5), value=int(name == "input_ids")) for name, values in batch.items()
    }
    torch.testing.assert_close(tower(**padded)[0], vector, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", PICTURE_CONFIGS)
def test_picture_tower_reads_vector_and_tokens_without_unused_parameters(family):
    tower = build_tower(PICTURE_CONFIGS[family])
    vector, tokens = tower(pixel_values=torch.randn(2, 3, 32, 32))
    assert vector.shape == (2, tower.width)
    assert tokens.shape[0] == 2
    assert tokens.shape[2] == tower.token_width
    vector.sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "siglip"])
def test_picture_tower_takes_another_size(family):
    tower = build_tower(PICTURE_CONFIGS[family])
    vector, _ = tower(pixel_values=torch.randn(1, 3, 48, 48))
    assert vector.shape == (1, 32)
