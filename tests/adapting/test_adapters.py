"""Training with low-rank adapters: what is trained, what is saved, how it goes on, and what is refused."""

import json

import numpy as np
import pytest
import torch
from adapting.adapted_runs import RHYTHM, encoder_flags, find_faults, go_back, last_logits, merged_logits
from launching import load_weights, logged_losses, train_flags
from peft import PeftModel
from safetensors.torch import load_file
from tiny import save_clip, save_encoders, tiny_batch
from transformers import AutoModel, BertConfig, CLIPTextConfig, DistilBertConfig, ResNetConfig, SwinConfig, T5Config

import train
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.towers import Tower
from training.build.adapters import add_adapters, find_adapters
from training.flags.model import ModelArguments

ATTENTION = {"text": {"query", "value"}, "image": {"q_proj", "k_proj", "v_proj", "o_proj"}}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def run_lora(sample, tmp_path):
    """Train with adapters of rank 2; returns the run folder."""
    save_encoders(tmp_path)

    def run(*flags, name="run", model=None):
        model = encoder_flags(tmp_path) if model is None else model
        train.main(train_flags(sample, tmp_path / name, *RHYTHM, "--lora_rank", "2", *flags, model=model)[1:])
        return tmp_path / name

    return run


def test_saved_model_has_the_adapters_in_it_and_peft_loads_them_onto_the_pretrained_encoders(run_lora, tmp_path):
    run = run_lora("--learning_rate", "1e-2")

    assert np.abs(last_logits(run) - merged_logits(run)).max() < 1e-5
    model, batch = SentimentClassifier.from_pretrained(run / "model").eval(), tiny_batch()
    batch["pixel_values"] = batch["pixel_values"].float()
    adapters = {}
    for kind, inputs in (("text", ("input_ids", "attention_mask")), ("image", ("pixel_values",))):
        pretrained = AutoModel.from_pretrained(tmp_path / {"text": "text", "image": "vision"}[kind])
        before, encoder = pretrained.state_dict(), model.towers()[kind].encoder
        changed = [name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])]
        assert {name.split(".")[-2] for name in changed} == ATTENTION[kind]
        adapted = PeftModel.from_pretrained(pretrained, run / "adapter" / kind).eval()
        with torch.no_grad():
            expected, found = (
                each(**{name: batch[name] for name in inputs}).last_hidden_state for each in (encoder, adapted)
            )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        adapters |= load_file(run / "adapter" / kind / "adapter_model.safetensors")
    table = json.loads((run / "metrics.json").read_text())["parameters"]
    added = sum(value.numel() for value in adapters.values())
    assert table["trainable"] == added + sum(p.numel() for n, p in model.named_parameters() if "_tower." not in n)
    assert table["total"] == added + model.num_parameters()


def test_towers_that_are_frozen_get_none_and_names_of_layers_count(run_lora, tmp_path):
    save_clip(tmp_path / "clip")
    model = ["--model", "clip", "--clip_name", str(tmp_path / "clip")]
    run = run_lora("--freeze", "text", "--lora_targets", "fc1", "v_proj", "--cache_features", "true", model=model)

    assert [path.name for path in (run / "adapter").iterdir()] == ["image"]
    config = json.loads((run / "adapter" / "image" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], set(config["target_modules"])) == (2, 4, {"fc1", "v_proj"})
    assert config["base_model_name_or_path"] == str(tmp_path / "clip")
    assert np.abs(last_logits(run) - merged_logits(run)).max() < 1e-5


def test_training_with_adapters_and_averaged_weights_goes_on_bit_for_bit(run_lora, tmp_path):
    flags = ["--ema_decay", "0.9", "--lora_alpha", "8", "--learning_rate", "1e-2"]
    whole = run_lora(*flags, name="whole")
    cut = go_back(whole, tmp_path / "cut", to=3)
    run_lora(*flags, "--resume_from_checkpoint", "latest", name="cut")

    assert logged_losses(cut) == logged_losses(whole)
    assert find_faults(cut / "checkpoints/checkpoint-6", whole / "checkpoints/checkpoint-6") == []
    weights, expected = load_weights(cut), load_weights(whole)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def test_other_scale_of_adapters_is_refused_in_a_resume(run_lora, refusal):
    run_lora()
    sentence = refusal(run_lora, "--lora_alpha", "3", "--resume_from_checkpoint", "latest")
    assert "was trained with --lora_alpha 4 (got 3)" in sentence


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--from_scratch"], "--lora_rank 2 and --from_scratch, whose towers have learned nothing"),
        (["--freeze", "both"], "no tower of --fusion transformer"),
        (["--unfreeze_last", "1"], "--lora_rank 2 and --unfreeze_last"),
        (["--cache_features", "true"], "uses no frozen tower"),
        (["--lora_rank", "0"], "--lora_rank 0; it takes 1 to"),
        (
            ["--lora_targets", "query", "qeury"],
            "--lora_targets qeury, which is in no adapted tower; there are text:",
        ),
        (["--lora_targets", "query"], "nothing is found in the image tower (ViTModel); name some of its linear layers"),
        (["--lora_targets", "layer", "layers"], "which peft can't adapt in the text tower"),
    ],
)
def test_adapters_that_cannot_be_are_refused(run_lora, refusal, flags, expected):
    assert expected in refusal(run_lora, *flags)


def test_adapters_need_towers_that_have_learned_something(run_lora, refusal):
    assert "--lora_rank 2 and --model baseline" in refusal(run_lora, model=["--model", "baseline"])


def test_scale_without_adapters_is_refused(run_train, refusal):
    assert "Got --lora_alpha 3, which has no effect without --lora_rank" in refusal(run_train, "--lora_alpha", "3")


def test_missing_package_is_named_with_its_command(run_lora, refusal, monkeypatch):
    monkeypatch.setattr("training.flags.model.find_spec", lambda name: None)
    assert "Got --lora_rank 2, which needs the package peft: pip install peft." in refusal(run_lora)


def test_sweep_refuses_adapters(refusal, tmp_path):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text("model: vilbert\nlora_rank: 4\nsweep:\n  seed: [1, 2]\n")
    assert "Got lora_rank, and a sweep" in refusal(train.main, ["--sweep", str(recipe)])


def test_quantised_encoder_is_refused(run_lora, refusal, tmp_path):
    file = tmp_path / "text" / "config.json"
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": quantised}))
    sentence = refusal(run_lora)
    assert "are quantised" in sentence
    assert "name the model that they were made from" in sentence


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        ("BertModel", BertConfig(**SMALL), {"query", "value"}),
        ("T5EncoderModel", T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), {"q", "v"}),
        (
            "DistilBertModel",
            DistilBertConfig(dim=16, hidden_dim=16, n_layers=1, n_heads=2),
            {"q_lin", "k_lin", "v_lin", "out_lin"},
        ),
        ("CLIPTextModel", CLIPTextConfig(**SMALL), {"q_proj", "k_proj", "v_proj", "out_proj"}),
        ("SwinModel", SwinConfig(embed_dim=16, depths=[1], num_heads=[2]), {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("ResNetModel", ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]), None),
    ],
)
def test_layers_of_attention_are_found_by_themselves(class_name, config, expected):
    tower = Tower({"class_name": class_name, "config": config.to_dict(), "projection_dim": 4})
    args = ModelArguments(model="vilbert", lora_rank=2)
    if expected is None:
        with pytest.raises(InputError, match="it has none"):
            add_adapters({"text": tower}, args, {"text": "any"})
        return
    add_adapters({"text": tower}, args, {"text": "any"})
    assert set(tower.encoder.peft_config["default"].target_modules) == expected
    trained = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in tower.named_parameters() if ".lora_" in name}


def test_model_without_adapters_has_none(run_lora):
    model = SentimentClassifier.from_pretrained(run_lora("--max_steps", "1") / "model")
    assert find_adapters(model) == {}
