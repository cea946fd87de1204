"""Invariants of every architecture with every fusion head."""

import itertools

import pytest
import torch
from tiny import ARCHITECTURES, LABELS, TOKENIZER, plan_of, tiny_batch, tiny_model

from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from training.build.build import build_model
from training.build.parameters import parameter_table
from training.flags.model import ModelArguments

EVERY_MODEL = list(itertools.product(ARCHITECTURES, FUSION_HEADS))
TWO_MODALITIES = [name for name, modalities in FUSIONS.items() if len(modalities) == 2]


def logits_of(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.parametrize(("architecture", "fusion"), EVERY_MODEL)
def test_saved_and_loaded_model_is_the_same_bit_for_bit(architecture, fusion, tmp_path):
    model, batch = tiny_model(architecture, fusion), tiny_batch()
    model.save_pretrained(tmp_path)
    loaded = SentimentClassifier.from_pretrained(tmp_path)
    assert isinstance(loaded, SentimentClassifier)
    assert loaded.config.to_dict().keys() == model.config.to_dict().keys()
    assert {k: v for k, v in loaded.config.to_dict().items() if k != "architectures"}.items() >= {
        "fusion": fusion,
        "architecture": architecture,
        "id2label": dict(enumerate(LABELS)),
    }.items()
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(logits_of(loaded, batch), logits_of(model, batch))
    again, other = (tiny_model(architecture, fusion, seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    assert any(not torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize("freeze", ["none", "text", "image", "both"])
@pytest.mark.parametrize(("architecture", "fusion"), EVERY_MODEL)
def test_every_trainable_parameter_gets_a_gradient(architecture, fusion, freeze):
    model = tiny_model(architecture, fusion, freeze=freeze).train()
    batch = tiny_batch()
    batch["text_present"][1] = batch["image_present"][2] = False
    model(**batch, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trainable.items() if parameter.grad is None] == []
    frozen = tuple(f"{kind}_tower." for kind in ("text", "image") if freeze in (kind, "both"))
    assert trainable.keys() == {name for name, _ in model.named_parameters() if not name.startswith(frozen)}


@pytest.mark.parametrize(("architecture", "fusion"), EVERY_MODEL)
def test_neither_padding_nor_neighbours_change_a_logit_and_encoding_before_fusing_is_the_forward(architecture, fusion):
    model, batch = tiny_model(architecture, fusion), tiny_batch()
    expected = logits_of(model, batch)
    padded = dict(batch)
    padded["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, 6), value=TOKENIZER.pad_token_id)
    padded["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 6))
    torch.testing.assert_close(logits_of(model, padded), expected, atol=1e-5, rtol=1e-5)
    alone = {name: values[1:2] for name, values in batch.items()}
    torch.testing.assert_close(logits_of(model, alone), expected[1:2], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(model.fuse(model.encode("text", batch), model.encode("image", batch)), expected)


@pytest.mark.parametrize("fusion", FUSION_HEADS)
def test_an_absent_modality_has_no_say_and_a_present_one_has(fusion):
    model, batch = tiny_model("vilbert", fusion), tiny_batch()
    other = dict(batch, input_ids=batch["input_ids"].flip(0), attention_mask=batch["attention_mask"].flip(0))
    other["pixel_values"] = batch["pixel_values"].flip(0)
    for kind, names in (("text", ("input_ids", "attention_mask")), ("image", ("pixel_values",))):
        changed = batch | {name: other[name] for name in names}
        used = kind in model.towers()
        assert torch.equal(logits_of(model, changed), logits_of(model, batch)) != used
        absent = {f"{kind}_present": torch.zeros(4, dtype=torch.bool)}
        torch.testing.assert_close(
            logits_of(model, changed | absent), logits_of(model, batch | absent), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("fusion", TWO_MODALITIES)
def test_single_modalities_are_judged_as_if_the_other_were_absent(fusion):
    model, batch = tiny_model("vilbert", fusion), tiny_batch()
    batch["text_present"][1] = batch["image_present"][2] = False
    with torch.no_grad():
        found = model.eval()(**batch, single_modalities=True)
    absent = torch.zeros(4, dtype=torch.bool)
    torch.testing.assert_close(found.logits, logits_of(model, batch))
    torch.testing.assert_close(found.text_logits, logits_of(model, batch | {"image_present": absent}))
    torch.testing.assert_close(found.image_logits, logits_of(model, batch | {"text_present": absent}))


@pytest.mark.parametrize("fusion", ["cross_attn", "co_attn"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_patch_has_a_say(architecture, fusion):
    model, batch = tiny_model(architecture, fusion).eval(), tiny_batch(1)
    text = model.encode("text", batch)
    image = model.encode("image", batch)
    tokens = image.tokens.detach().requires_grad_()
    model.fuse(text, type(image)(image.vector, tokens, image.mask)).sum().backward()
    assert (tokens.grad.abs().sum(-1) > 0).all()


def test_co_attn_ignores_padded_tokens_and_reads_the_others():
    model, batch = tiny_model("vilbert", "co_attn").eval(), tiny_batch()
    text = model.encode("text", batch)
    image = model.encode("image", batch)
    tokens = text.tokens.detach().requires_grad_()
    model.fuse(type(text)(text.vector, tokens, text.mask), image).sum().backward()
    assert torch.equal(tokens.grad.abs().sum(-1) > 0, text.mask)


@pytest.mark.parametrize("fusion", FUSION_HEADS)
def test_one_batch_is_overfitted(fusion):
    model, batch = tiny_model("vilbert", fusion).train(), tiny_batch(8)
    labels = torch.arange(8) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05
    assert torch.equal(logits_of(model, batch).argmax(-1), labels)


@pytest.mark.parametrize(("architecture", "millions"), [("baseline", 126), ("vilbert", 211), ("clip", 162)])
def test_default_sizes_have_the_parameters_of_the_comparison(architecture, millions):
    arguments = ModelArguments(model=architecture, from_scratch=True)
    plan = plan_of(arguments)
    vocabulary = {"baseline": arguments.vocab_size, "vilbert": 30_522, "clip": 49_408}[architecture]
    tokenizer = TokenizerOfSize(vocabulary)
    with torch.device("meta"):
        model = build_model(plan, arguments, tokenizer=tokenizer, labels=LABELS, text_cleaning="report")
    table = parameter_table(model)
    assert table["total"] == table["text"] + table["image"] + table["fusion"] + table["head"] == table["trainable"]
    assert table["total"] / 1e6 == pytest.approx(millions, abs=1)


class TokenizerOfSize:
    pad_token_id, cls_token_id, sep_token_id = 0, 2, 3

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


def test_only_the_used_tower_is_built_and_frozen_parts_are_not_trainable():
    table = parameter_table(tiny_model("clip", "text_only"))
    assert table["image"] == 0 < table["text"]
    table = parameter_table(tiny_model("clip", "image_only", freeze="both"))
    assert table["text"] == 0 < table["image"]
    assert table["trainable"] == table["total"] - table["image"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_pixels_that_are_not_uint8_are_refused(dtype):
    batch = tiny_batch()
    with pytest.raises(TypeError, match="uint8"):
        tiny_model()(**batch | {"pixel_values": batch["pixel_values"].to(dtype)})


def test_pixels_are_rescaled_and_normalised_once():
    model = tiny_model()
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.image_mean, model.config.image_std))
    torch.testing.assert_close(model.normalize(pixels), (pixels / 255 - mean) / std)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_checkpointing_gives_the_same_gradients(architecture):
    batch, labels = tiny_batch(), torch.tensor([0, 1, 2, 0])
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(architecture).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch, labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_checkpoint_of_another_structure_names_keys_and_sizes(tmp_path):
    tiny_model("clip", "early").save_pretrained(tmp_path)
    other = tiny_model("clip", "attn").config
    with pytest.raises(InputError, match=r"fusion\.encoder.*--fusion") as error:
        SentimentClassifier.from_pretrained(tmp_path, config=other)
    assert "fusion.classifier.0.weight is (16, 32) in the file, (16, 16) in the model" in str(error.value)
