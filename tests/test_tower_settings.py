"""--text_config and --vision_config: what no tower can be built or run with is refused before data are prepared."""

from __future__ import annotations

import json

import pytest
from tiny import IMAGE_SIZE, SIZES

from data_utils.errors import InputError
from modeling.arguments import ModelArguments
from modeling.plan import plan_model

BASE = {"text": SIZES | {"max_position_embeddings": 16}, "vision": SIZES | {"patch_size": 16}}


@pytest.mark.parametrize(
    ("kind", "setting", "expected"),
    [
        ("text", {"dtype": []}, "Got 'dtype': [] in --text_config"),
        ("text", {"__class__": 1}, "Got '__class__' in --text_config, which BertConfig doesn't have"),
        ("text", {"to_dict": 1}, "Got 'to_dict' in --text_config, which BertConfig doesn't have"),
        ("text", {"num_labels": "x"}, "Got 'num_labels': 'x' in --text_config"),
        ("text", {"hidden_act": "x"}, "BertModel can't be built from its settings"),
        ("text", {"hidden_dropout_prob": 3.0}, "BertModel can't be built from its settings"),
        ("vision", {"image_size": 7}, "image_size 7 in the picture tower's settings, which is less than a patch"),
        ("vision", {"attention_probs_dropout_prob": 3.0}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_setting_that_does_not_fit_is_refused(kind, setting, expected):
    configs = BASE | {kind: BASE[kind] | setting}
    arguments = ModelArguments(
        model="vilbert",
        fusion="co_attn",
        from_scratch=True,
        text_config=json.dumps(configs["text"]),
        vision_config=json.dumps(configs["vision"]),
    )
    with pytest.raises(InputError) as refusal:
        plan_model(arguments, image_size=IMAGE_SIZE, image_resize_mode=None, max_length=None)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
