"""How towers are read out: the mean of a text's tokens, several layers of a picture."""

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_arguments, tiny_batch, tiny_model, tiny_plan

from modeling.classifier import SentimentClassifier
from modeling.errors import InputError

LAYERS = [0, 1, -1]


def test_mean_of_a_text_knows_no_padding():
    model = tiny_model("vilbert", "early", text_pooling="mean").eval()
    batch = tiny_batch(4)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        padded, tokens = model.text_tower(input_ids=ids, attention_mask=mask)
        for row in range(4):
            length = int(mask[row].sum())
            alone, _ = model.text_tower(
                input_ids=ids[row : row + 1, :length], attention_mask=mask[row : row + 1, :length]
            )
            assert padded[row] == pytest.approx(alone[0], abs=1e-5)
            assert padded[row] == pytest.approx(tokens[row, :length].mean(0), abs=1e-5)


def test_layers_of_a_picture_stand_side_by_side():
    model = tiny_model("vilbert", "early", vision_feature_layer=LAYERS).eval()
    pixels = model.normalize(tiny_batch(3)["pixel_values"])
    tower = model.image_tower
    with torch.no_grad():
        vector, _ = tower(pixel_values=pixels)
        output = tower.encoder(pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True)
    wanted = [output.hidden_states[0][:, 0], output.hidden_states[1][:, 0], output.last_hidden_state[:, 0]]
    assert vector.shape == (3, tower.width) == (3, 3 * tower.token_width)
    assert vector == pytest.approx(torch.cat([F.layer_norm(layer, layer.shape[-1:]) for layer in wanted], -1), abs=1e-5)


@pytest.mark.parametrize("architecture", ["baseline", "vilbert", "clip"])
def test_every_weight_learns_and_the_model_loads_again(architecture, tmp_path):
    model = tiny_model(architecture, "early", vision_feature_layer=[1, 2], text_pooling="mean")
    batch = tiny_batch(4)
    batch["text_present"][0] = batch["image_present"][1] = False
    model(**batch, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    model.save_pretrained(tmp_path)
    again, info = SentimentClassifier.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    again.eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"text_config": {"hiden_size": 64}}, "Did you mean 'hidden_size'"),
        ({"vision_config": {"hiden_size": 64}}, "Did you mean 'hidden_size'"),
        ({"unfreeze_last": 0}, "at least 1"),
        ({"unfreeze_last": 3}, "BertModel has 2 blocks"),
        ({"cache_features": True}, "uses no frozen tower"),
        ({"cache_features": True, "freeze": "image", "fusion": "text_only"}, "uses no frozen tower"),
        ({"vision_feature_layer": [1]}, "leaves the last block, 2, out"),
        ({"vision_feature_layer": [3]}, "has the layers 0"),
        ({"vision_feature_layer": [2, -1]}, "named once"),
        ({"vision_feature_layer": [1, 2], "unfreeze_last": 1}, "would not be computed"),
        ({"vision_feature_layer": [1], "unfreeze_last": 1}, "would not be computed"),
        ({"text_pooling": "max"}, "default, mean"),
    ],
)
def test_settings_that_no_tower_can_have_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        tiny_plan(tiny_arguments("vilbert", **{"fusion": "early"} | options))


def test_lower_layers_alone_are_for_frozen_towers():
    plan = tiny_plan(tiny_arguments("vilbert", "early", vision_feature_layer=[1], freeze="image"))
    assert plan.vision.feature_layers == (1,)
