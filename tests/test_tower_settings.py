"""--text_config and --vision_config: what no tower can be built or run with is refused before data are prepared."""

from __future__ import annotations

import json

import pytest
from families import save_family, small_config
from tiny import IMAGE_SIZE, SIZES, plan_of

from modeling.errors import InputError
from training.flags.model import ModelArguments

BASE = {"text": SIZES | {"max_position_embeddings": 16}, "vision": SIZES | {"patch_size": 16}}


@pytest.mark.parametrize(
    ("kind", "setting", "expected"),
    [
        ("text", {"dtype": []}, "Got 'dtype': [] in --text_config"),
        ("text", {"__class__": 1}, "Got '__class__' in --text_config, which BertConfig doesn't have"),
        ("text", {"to_dict": 1}, "Got 'to_dict' in --text_config, which BertConfig doesn't have"),
        ("text", {"num_labels": "x"}, "Got 'num_labels': 'x' in --text_config"),
        ("text", {"hidden_act": "x"}, "BertModel can't be built from its settings"),
        ("text", {"hidden_dropout_prob": 3.0}, "--text_config has hidden_dropout_prob 3.0; a dropout is 0 to 1"),
        ("text", {"attention_probs_dropout_prob": -1}, "attention_probs_dropout_prob -1; a dropout is 0 to 1"),
        ("vision", {"attention_probs_dropout_prob": -0.5}, "attention_probs_dropout_prob -0.5; a dropout is 0 to 1"),
        ("vision", {"image_size": 7}, "image_size 7 in the picture tower's settings, which is less than a patch"),
        ("vision", {"attention_probs_dropout_prob": 3.0}, "a dropout is 0 to 1"),
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
        plan_of(arguments, image_size=IMAGE_SIZE)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("flag", [{"lowercase": False}, {"vocab_size": 100}])
def test_flag_of_a_tokenizer_trained_here_is_refused_beside_one_that_is_there(flag, tmp_path):
    save_family(small_config("bert"), tmp_path)
    arguments = ModelArguments(model="vilbert", fusion="text_only", text_name=str(tmp_path), **flag)
    with pytest.raises(InputError, match=f"Got --{next(iter(flag))} .* brings its own; leave it out"):
        plan_of(arguments)
