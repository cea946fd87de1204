"""Frozen encoders of many families: what is frozen, and that the rest gives the same numbers on kept output."""

import pytest
import torch
import transformers
from models.test_modeling_families import (
    PICTURE,
    PICTURE_CONFIGS,
    SMALL,
    TEXT_CLASSES,
    TEXT_CONFIGS,
    build_tower,
    text_batch,
)
from tiny import tiny_model

from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.build.parameters import check_frozen_weights

DEEP = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32}
PICTURES = [
    *(PICTURE_CONFIGS[name] for name in ("vit", "dinov2", "clip", "siglip")),
    transformers.BeitConfig(**SMALL, **PICTURE),
    transformers.Dinov2WithRegistersConfig(**DEEP, **PICTURE),
]


def inputs_of(config):
    """Inputs of a family's tower."""
    is_text = hasattr(config, "vocab_size") and not hasattr(config, "image_size")
    return text_batch() if is_text else {"pixel_values": torch.randn(2, 3, 32, 32)}


def cut_tower(config, encoder_class=None, unfreeze_last=1):
    tower = build_tower(config, encoder_class)
    tower.freeze(unfreeze_last)
    return tower


ENCODERS = [(config, TEXT_CLASSES.get(name)) for name, config in TEXT_CONFIGS.items()]
ENCODERS += [(config, None) for config in PICTURES]


@pytest.mark.parametrize(("config", "encoder_class"), ENCODERS, ids=[config.model_type for config, _ in ENCODERS])
def test_trained_blocks_on_kept_output_give_the_same_numbers_and_gradients(config, encoder_class):
    tower, inputs = cut_tower(config, encoder_class).train(), inputs_of(config)
    with torch.no_grad():
        hidden = tower.run_frozen(**inputs)
    found = []
    for kept in (None, hidden):
        torch.manual_seed(0)
        vector, tokens = tower(**inputs, hidden=kept)
        tower.zero_grad()
        (vector.sum() + tokens.square().sum()).backward()
        gradients = {name: value.grad.clone() for name, value in tower.named_parameters() if value.requires_grad}
        found.append((vector, tokens, gradients))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    frozen = {name for name, value in tower.named_parameters() if not value.requires_grad}
    assert frozen
    assert {f"encoder.{name}" for name in tower.frozen_weights()} >= frozen
    # Changing what is trained changes nothing in what was kept.
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
        assert torch.equal(tower.run_frozen(**inputs), hidden)


@pytest.mark.parametrize("family", ["swin", "resnet", "convnext"])
def test_encoder_in_stages_is_refused(family):
    with pytest.raises(InputError, match="one list of equal blocks"):
        cut_tower(PICTURE_CONFIGS[family])


@pytest.mark.parametrize("freezing", [{"unfreeze_last": 1}, {"freeze": "both"}])
def test_frozen_model_is_loaded_as_it_was_saved(tmp_path, freezing):
    model = tiny_model("vilbert", "attn", **freezing)
    model.save_pretrained(tmp_path)
    loaded = SentimentClassifier.from_pretrained(tmp_path).train()
    trainable = [{name for name, value in one.named_parameters() if value.requires_grad} for one in (model, loaded)]
    assert trainable[0] == trainable[1]
    blocks = loaded.image_tower.encoder.layers
    assert not any(module.training for module in blocks[0].modules())
    assert blocks[1].training == ("unfreeze_last" in freezing)
    assert not loaded.text_tower.encoder.embeddings.dropout.training


def test_checkpoint_of_other_frozen_weights_is_refused(tmp_path):
    model = tiny_model("clip", "attn", freeze="both")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    with torch.no_grad():
        model.fusion.gate.weight += 1
    check_frozen_weights(model, file)
    with torch.no_grad():
        model.text_tower.projection.weight += 1
    with pytest.raises(InputError, match=r"text_tower\.projection\.weight is not that of"):
        check_frozen_weights(model, file)
