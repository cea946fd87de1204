"""Reasons for answers: exact differences, of any head, of what alone decides, of missing and hostile sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import IMAGE_SIZE, LABELS, TOKENIZER, tiny_arguments, tiny_model, tiny_plan
from torch.nn.modules.module import register_module_forward_hook

from evaluation.reasons.explaining import MAX_TEXT, explain_pair
from evaluation.reasons.faithfulness import list_effects
from evaluation.reasons.overlay import draw_regions
from modeling.choices import FUSIONS, PROBLEM_TYPES
from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels
from modeling.processor import SentimentProcessor
from modeling.text import TEXT_SEPARATOR
from run_files.explanations import Reasons, read_explanations, write_explanations
from training.build.build import build_model

GRID = 3
TEXT = "a good day some plain words"
PIXELS = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def stir(model: SentimentClassifier, seed: int = 0) -> SentimentClassifier:
    """With larger random weights, so that answers differ clearly."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def explain(*models: SentimentClassifier, text: str | None = TEXT, picture=PICTURE, **options) -> Reasons:
    processor = SentimentProcessor.from_config(models[0].config, TOKENIZER)
    return explain_pair([JointModels([each]) for each in models], processor, text, picture, **{"grid": GRID} | options)


def ask(models, text: str | None, picture: Image.Image | None) -> np.ndarray:
    processor = SentimentProcessor.from_config(models[0].config, TOKENIZER)
    batch = processor(text=text or "", images=picture)
    with torch.inference_mode():
        return np.mean([model.probabilities(model(**batch).logits)[0].numpy() for model in models], axis=0)


@pytest.mark.parametrize("num_models", [1, 2])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_effect_is_what_the_answer_loses_without_that_part(fusion, num_models):
    models = [stir(tiny_model("vilbert", fusion), seed) for seed in range(num_models)]
    reasons, whole = explain(*models), ask(models, TEXT, PICTURE)
    number = int(whole.argmax())

    assert reasons.label == LABELS[number]
    assert reasons.probability == pytest.approx(float(whole[number]), abs=1e-5)
    assert (len(reasons.words), reasons.regions is None) == (0 if fusion == "image_only" else 6, fusion == "text_only")
    for word in reasons.words:
        text = " ".join((reasons.text[: word.start] + reasons.text[word.end :]).split())
        assert word.effect == pytest.approx(float((whole - ask(models, text, PICTURE))[number]), abs=1e-5)
    if reasons.regions is not None:
        pixels = PIXELS.copy()
        pixels[:11, 22:] = PIXELS.reshape(-1, 3).mean(axis=0).round()  # 32 pixels in 3 cells: 11, 11, 10
        effect = (whole - ask(models, TEXT, Image.fromarray(pixels)))[number]
        assert np.shape(reasons.regions) == (GRID, GRID)
        assert reasons.regions[0][2] == pytest.approx(float(effect), abs=1e-5)


def test_what_alone_decides_has_the_largest_effect():
    torch.manual_seed(0)
    model, rng = tiny_model("vilbert", "late"), np.random.default_rng(0)
    processor = SentimentProcessor.from_config(model.config, TOKENIZER)
    draw = {"good": 255, "bad": 0}

    def make(word: str) -> tuple[str, Image.Image]:
        """A word at any place, and a white or a black region in the middle, tell the label."""
        words, pixels = ["some", "plain", "day", "words"], rng.integers(96, 160, PIXELS.shape, dtype=np.uint8)
        words.insert(int(rng.integers(5)), word)
        pixels[11:22, 11:22] = draw[word]
        return " ".join(words), Image.fromarray(pixels)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        chosen = rng.choice([*draw], 16).tolist()
        texts, pictures = zip(*map(make, chosen), strict=True)
        labels = torch.tensor([2 * (word == "good") for word in chosen])
        loss = model(**processor(text=[*texts], images=[*pictures]), labels=labels, single_modalities=True)
        total = sum(torch.nn.functional.cross_entropy(each, labels) for each in (loss.text_logits, loss.image_logits))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    model.eval()

    for word, label in (("good", "positive"), ("bad", "negative")):
        text, picture = make(word)
        by_text, by_picture = explain(model, text=text, picture=None), explain(model, text=None, picture=picture)
        largest = max(by_text.words, key=lambda each: each.effect)
        assert by_text.label == by_picture.label == label
        assert by_text.text[largest.start : largest.end] == word
        assert int(list_effects(by_picture, "regions").argmax()) == 4


def test_each_part_passes_its_tower_once():
    model, rows = stir(tiny_model("vilbert", "co_attn", freeze="both")), {"BertModel": 0, "ViTModel": 0}

    def note(module, inputs, output) -> None:
        if type(module).__name__ in rows:
            rows[type(module).__name__] += len(output.last_hidden_state)

    hook = register_module_forward_hook(note)
    try:
        singly = explain(model, batch_size=1)
        assert rows == {"BertModel": 1 + 6, "ViTModel": 1 + GRID**2}
    finally:
        hook.remove()
    at_once = explain(model, batch_size=100)
    for side in ("words", "regions"):
        np.testing.assert_allclose(list_effects(singly, side), list_effects(at_once, side), atol=3e-6)


@pytest.mark.parametrize("task", PROBLEM_TYPES)
def test_every_task_is_explained(task):
    arguments, labels = tiny_arguments("clip", "early"), LABELS[: 1 if task == "regression" else 3]
    model = build_model(
        tiny_plan(arguments), arguments, tokenizer=TOKENIZER, labels=labels, text_cleaning="report", task=task
    )
    stir(model).config.label_std = 2.0
    reasons, said = explain(model), ask([model], TEXT, PICTURE)

    assert reasons.probability == pytest.approx(float(said.max()), abs=1e-5)
    assert reasons.label == labels[int(said.argmax())]
    assert np.abs(list_effects(reasons, "words")).max() > 1e-3


@pytest.mark.parametrize(
    ("text", "picture", "num_words"),
    [(TEXT, None, 6), (None, PICTURE, 0), ("", PICTURE, 0), (None, None, 0), ("day", PICTURE, 1)],
)
def test_a_missing_side_has_no_reasons(text, picture, num_words):
    model = stir(tiny_model("vilbert", "early"))
    reasons = explain(model, text=text, picture=picture)

    assert (len(reasons.words), reasons.regions is None) == (num_words, picture is None)
    if text == "day":  # without its only word the text is a missing one
        number = LABELS.index(reasons.label)
        lost = ask([model], text, picture)[number] - ask([model], None, picture)[number]
        assert reasons.words[0].effect == pytest.approx(float(lost), abs=1e-5)


def test_words_that_are_not_read_are_told_and_change_nothing():
    model = stir(tiny_model("vilbert", "early"))
    long, longer = (explain(model, text="a good day " * count) for count in (10, 500))

    assert long.cut_at == long.words[-1].end < len(long.text)
    assert long.words == longer.words
    assert len(long.words) <= model.config.max_length
    assert explain(model, text=TEXT).cut_at is None


@pytest.mark.parametrize(
    "text",
    [
        *("<script>alert(1)</script> &amp; \x1b[31mred\x07", "\u202eolleh\u2066 abc\u2069 \u200b \u200d", "\0a\0 b\0c"),
        *("今天天气很好 good", "x" * 100_000, "a " * 50_000, "\u200b " * 5_000 + "day", "🙂🙃 \U0010ffff"),
        *(f"{TEXT_SEPARATOR} good{TEXT_SEPARATOR}day", "# @ ! ? ...", "é e\u0301 ﷽"),
    ],
)
def test_hostile_texts_have_reasons_that_can_be_read_again(text, tmp_path):
    reasons = explain(stir(tiny_model("vilbert", "text_only")), text=text)
    path = tmp_path / "explanations_val.json"
    write_explanations(path, [reasons], "val", gradients=None, faithfulness={}, cost={})

    assert read_explanations(path)[0] == [reasons]
    assert len(reasons.text) <= MAX_TEXT
    assert all(reasons.text[word.start : word.end].split() for word in reasons.words)
    assert np.isfinite(list_effects(reasons, "words")).all()


def test_several_pictures_are_explained_one_below_the_other():
    model = stir(tiny_model("vilbert", "cross_attn"))
    other = Image.fromarray(PIXELS[::-1].copy())
    reasons = explain(model, picture=[PICTURE, other])
    number = LABELS.index(reasons.label)
    pixels = PIXELS[::-1].copy()
    pixels[:11, :11] = PIXELS.reshape(-1, 3).mean(axis=0).round()
    whole, less = (ask([model], TEXT, [PICTURE, each]) for each in (other, Image.fromarray(pixels)))

    assert np.shape(reasons.regions) == (2 * GRID, GRID)
    assert reasons.regions[GRID][0] == pytest.approx(float((whole - less)[number]), abs=1e-5)


def test_the_strongest_region_is_drawn_and_one_without_effect_is_not():
    grey = np.full((30, 30, 3), 128, dtype=np.uint8)
    drawn = draw_regions(grey, [[0.5, 0.0, -0.5]] * 3)

    assert drawn.shape == grey.shape
    assert drawn[15, 2, 0] > 190 > 60 > drawn[15, 2, 2]
    assert drawn[15, 27, 2] > 150 > 70 > drawn[15, 27, 0]
    assert np.array_equal(draw_regions(grey, [[1e-6] * 3] * 3), grey)
