"""Models that no machine could hold, and settings that no tower can have: refused at once, in one sentence."""

from __future__ import annotations

import json
import resource
import time

import pytest
import torch
from families import save_family, small_config
from tiny import IMAGE_SIZE, SIZES, plan_of, tiny_model
from transformers import BertConfig, CLIPImageProcessorPil, ViTConfig

from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from training.flags.model import ModelArguments

HUGE = [
    ({"text_config": {"num_hidden_layers": 10**7}}, None, "--text_config has num_hidden_layers 10000000"),
    ({"text_config": {"num_hidden_layers": 999}}, None, "over 10,000 parts"),
    ({"vision_config": {"num_hidden_layers": 10**10}}, None, "--vision_config has num_hidden_layers 10000000000"),
    ({"text_config": {"vocab_size": 10**10}}, None, "GiB of memory of this machine are too few"),
    ({"text_config": {"hidden_size": 10**6}}, None, "GiB of memory of this machine are too few"),
    ({"text_config": {"max_position_embeddings": 10**10}}, None, "GiB of memory of this machine are too few"),
    ({"text_config": {"vocab_size": 10**30}}, None, "vocab_size 1000000000000"),
    ({"vision_config": {"intermediate_size": 10**9}}, None, "GiB of memory of this machine are too few"),
    ({"projection_dim": 10**9}, None, "--projection_dim 1000000000"),
    ({"vocab_size": 10**12}, None, "--vocab_size 1000000000000"),
    ({}, 10**6, "pictures of 1000000 px"),
]


@pytest.mark.parametrize("model", ["baseline", "clip"])
@pytest.mark.parametrize(("flags", "image_size", "expected"), HUGE)
def test_flags_that_ask_for_too_much_are_refused_at_once(model, flags, image_size, expected):
    def plan():
        plan_of(ModelArguments(model=model, from_scratch=True, **flags), image_size=image_size)

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as refusal:
        plan()
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


@pytest.mark.parametrize(
    ("config", "flag", "expected"),
    [
        (BertConfig(**SIZES, vocab_size=10**10), "text_name", "GiB of memory"),
        (ViTConfig(hidden_size=6144, image_size=8_000, patch_size=1), "vision_name", "GiB of memory"),
    ],
)
def test_named_model_of_absurd_size_is_refused(config, flag, expected, tmp_path):
    fusion = {"text_name": "text_only", "vision_name": "image_only"}[flag]
    config.save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"height": 30, "width": 30}, do_center_crop=False).save_pretrained(tmp_path)
    arguments = ModelArguments(model="vilbert", fusion=fusion, **{flag: str(tmp_path)})
    with pytest.raises(InputError, match=expected):
        plan_of(arguments)


def test_named_model_with_millions_of_layers_is_refused_before_its_lists_are_made(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "num_hidden_layers": 10**10}))
    with pytest.raises(InputError, match="has num_hidden_layers 10000000000"):
        plan_of(ModelArguments(model="vilbert", fusion="text_only", text_name=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda settings: settings["text_tower"]["config"].update(num_hidden_layers=10**7), "num_hidden_layers"),
        (lambda settings: settings["vision_tower"]["config"].update(hidden_size=10**7), "GiB of memory"),
        (lambda settings: settings["text_tower"].update(projection_dim=10**15), "projection_dim"),
        (lambda settings: settings.update(align_dim=10**12), "align_dim"),
    ],
)
def test_saved_model_of_absurd_size_is_refused(change, expected, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=expected):
        SentimentClassifier.from_pretrained(tmp_path)


def test_size_is_counted_anew_for_each_model():
    config = SentimentConfig.from_dict(tiny_model().config.to_dict())
    for _ in range(3):
        with torch.device("meta"):
            assert SentimentClassifier(config).num_parameters() > 0


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
        ("vision", {"attention_probs_dropout_prob": -0.5}, "attention_probs_dropout_prob -0.5; a dropout is 0 to 1"),
        ("vision", {"image_size": 7}, "image_size 7 in the picture tower's settings, which is less than a patch"),
    ],
)
def test_setting_that_does_not_fit_is_refused(kind, setting, expected):
    configs = BASE | {kind: BASE[kind] | setting}
    towers = {"text_config": configs["text"], "vision_config": configs["vision"]}
    arguments = ModelArguments(model="vilbert", fusion="co_attn", from_scratch=True, **towers)
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
