"""Building over pretrained towers, whose random start is left out: nothing of the model stays without a value."""

import pytest
import torch
from tiny import LABELS, SIZES, TOKENIZER, plan_of, save_clip, save_processor
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from modeling.fusion import FUSION_HEADS
from training.build.build import build_model
from training.flags.model import ModelArguments


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a tiny CLIP, and the model in it."""
    folder = tmp_path_factory.mktemp("clip")
    return folder, save_clip(folder)


@pytest.mark.parametrize("fusion", FUSION_HEADS)
def test_towers_are_the_source_s_and_the_rest_is_drawn(clip, fusion):
    folder, donor = clip
    arguments = ModelArguments(model="clip", fusion=fusion, clip_name=str(folder))
    plan = plan_of(arguments, max_length=16)
    # Memory that is allocated anew holds what was in it: nan here, so that a weight without a value shows.
    leftovers = [torch.full((size,), float("nan")) for size in (16, 32, 64, 256, 1024, 4096) for _ in range(200)]
    del leftovers
    torch.manual_seed(0)
    model = build_model(plan, arguments, tokenizer=TOKENIZER, labels=LABELS, text_cleaning="report")
    for kind, tower in model.towers().items():
        source = donor.text_model if kind == "text" else donor.vision_model
        for name, value in tower.encoder.state_dict().items():
            assert torch.equal(value, source.state_dict()[name]), name
    for name, parameter in model.named_parameters():
        if "_tower." in name:
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.005 < parameter.std() < 0.05, name


@pytest.fixture(scope="module")
def pair_without_poolers(tmp_path_factory):
    """Folders of a text and a picture encoder whose poolers are drawn when they are loaded."""
    folder = tmp_path_factory.mktemp("pair")
    text = BertConfig(**SIZES, vocab_size=len(TOKENIZER), max_position_embeddings=16)
    BertModel(text, add_pooling_layer=False).save_pretrained(folder / "text")
    TOKENIZER.save_pretrained(folder / "text")
    vision = ViTConfig(**SIZES, image_size=32, patch_size=16)
    ViTModel(vision, add_pooling_layer=False).save_pretrained(folder / "vision")
    save_processor(folder / "vision")
    return {"text_name": str(folder / "text"), "vision_name": str(folder / "vision"), "projection_dim": 16}


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("fusion", ["attn", "co_attn", "image_only"])
def test_shared_towers_are_not_read_again_and_leave_the_head_its_weights(
    clip, pair_without_poolers, monkeypatch, composed, fusion
):
    names = pair_without_poolers if composed else {"clip_name": str(clip[0])}
    arguments = ModelArguments(model="clip", fusion=fusion, freeze="both", **names)
    plan = plan_of(arguments, max_length=16)

    def build(seed, towers):
        torch.manual_seed(seed)
        return build_model(plan, arguments, tokenizer=TOKENIZER, labels=LABELS, text_cleaning="report", towers=towers)

    alone, other = build(7, None), build(8, None)
    monkeypatch.setattr("training.build.build._load_donor", None)
    shared = build(7, other.towers())
    assert all(shared.towers()[kind] is tower for kind, tower in other.towers().items())
    expected, others = alone.state_dict(), other.state_dict()
    assert list(shared.state_dict()) == list(expected)
    for name, value in shared.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(expected["fusion.classifier.0.weight"], others["fusion.classifier.0.weight"])
    trained = [[name for name, value in model.named_parameters() if value.requires_grad] for model in (alone, shared)]
    assert trained[0] == trained[1]
