"""Several pictures per row: each row is judged as if it were alone, and one picture per row as it always was."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS, tiny_flags
from tiny import IMAGE_SIZE, TOKENIZER, tiny_batch, tiny_model

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pair_files import PairFiles, PairList
from modeling.batch import stack_pictures
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.build.parameters import find_idle
from training.flags.model import ModelArguments

READ_PICTURES = [name for name, modalities in FUSIONS.items() if "image" in modalities]
COUNTS = (1, 3, 2, 1)


def make_batch(order: int = 1) -> dict[str, torch.Tensor]:
    """Four rows of 1, 3, 2 and 1 pictures, which stand in this order (1 or -1)."""
    drawn = np.random.default_rng(3).integers(0, 256, (sum(COUNTS), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    ends = np.cumsum((0, *COUNTS))
    rows = [drawn[first:last][::order].tobytes() for first, last in itertools.pairwise(ends)]
    numbers = {name: [0] * 4 for name in ("label", "row_index")} | {"text_present": [True] * 4}
    pictures = {"image": rows, "image_present": [True] * 4}
    columns = numbers | pictures | {"input_ids": [[1, 2], [3], [2, 2, 3], [1]]}
    batch = PairCollator(pad_token_id=TOKENIZER.pad_token_id, image_size=IMAGE_SIZE)(columns)
    return {name: value for name, value in batch.items() if name not in ("labels", "row_index")}


def judge(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits


def pick(batch, row):
    """One row, without the places that only other rows fill."""
    alone = {name: value[row : row + 1] for name, value in batch.items()}
    alone["pixel_values"] = alone["pixel_values"][:, : COUNTS[row]]
    alone["picture_mask"] = alone["picture_mask"][:, : COUNTS[row]]
    if COUNTS[row] == 1:
        alone["pixel_values"] = alone["pixel_values"][:, 0]
        del alone["picture_mask"]
    return alone


def test_pictures_are_padded_to_the_longest_row():
    batch = make_batch()
    assert batch["pixel_values"].shape == (4, 3, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert batch["picture_mask"].tolist() == [
        [True, False, False],
        [True] * 3,
        [True, True, False],
        [True, False, False],
    ]
    assert not batch["pixel_values"][~batch["picture_mask"]].any()
    (pixels,) = stack_pictures([None, bytes([7]) * 3 * IMAGE_SIZE**2], IMAGE_SIZE).values()
    assert pixels.shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert (pixels[0].max(), pixels[1].min()) == (0, 7)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("fusion", READ_PICTURES)
def test_each_row_is_judged_as_if_it_were_alone(fusion, pooling):
    model, batch = tiny_model("vilbert", fusion, picture_pooling=pooling), make_batch()
    if pooling == "attention":
        torch.nn.init.normal_(model.picture_query, std=20)
    logits = judge(model, batch)
    for row in range(4):
        torch.testing.assert_close(judge(model, pick(batch, row)), logits[row : row + 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judge(model, make_batch(order=-1)), logits, atol=1e-5, rtol=1e-5)
    absent = batch | {"image_present": torch.zeros(4, dtype=torch.bool)}
    blank = absent | {"pixel_values": torch.zeros_like(batch["pixel_values"])}
    torch.testing.assert_close(judge(model, absent), judge(model, blank))


def test_the_vector_is_the_mean_and_attention_begins_with_it():
    mean, attention = (tiny_model("vilbert", "early", picture_pooling=pooling) for pooling in ("mean", "attention"))
    batch = make_batch()
    torch.testing.assert_close(judge(attention, batch), judge(mean, batch))
    single = [pick(batch, 2) | {"pixel_values": batch["pixel_values"][2:3, place]} for place in range(2)]
    for each in single:
        del each["picture_mask"]
    vectors = [mean.eval()(**each).image_embeds for each in single]
    torch.testing.assert_close(mean(**batch).image_embeds[2:3], sum(vectors) / 2, atol=1e-5, rtol=1e-5)
    assert torch.equal(judge(attention, tiny_batch()), judge(mean, tiny_batch()))
    torch.nn.init.normal_(attention.picture_query, std=20)
    assert not torch.allclose(judge(attention, batch), judge(mean, batch), atol=1e-4)


def test_the_query_is_saved_and_learns(tmp_path: Path):
    model = tiny_model("clip", "attn", picture_pooling="attention")
    assert find_idle(model) == []
    model.train()(**make_batch(), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert model.picture_query.grad.abs().sum() > 0
    torch.nn.init.normal_(model.picture_query)
    model.save_pretrained(tmp_path)
    assert torch.equal(SentimentClassifier.from_pretrained(tmp_path).picture_query, model.picture_query)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"picture_pooling": "max"}, "mean, attention"),
        ({"fusion": "text_only", "picture_pooling": "attention"}, "reads none"),
    ],
)
def test_a_pooling_that_can_not_be_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        ModelArguments(from_scratch=True, **options)


@pytest.fixture
def several(monkeypatch):
    """Every third row has two pictures, the other one being that of the first row."""
    find = PairList.find

    def find_two(source, guid):
        pair = find(source, guid)
        pictures = [pair.picture, find(source, "0").picture]
        return PairFiles(pair.text, pictures) if int(guid) % 3 == 0 else pair

    monkeypatch.setattr(PairList, "find", find_two)


def test_a_run_trains_on_them_and_is_evaluated(several, run_train, evaluate_main):
    """By attention; the test below trains on their mean."""
    flags = ["--fusion", "co_attn", "--picture_pooling", "attention", "--labels", *LABELS]
    folder, _ = run_train(*flags)
    evaluate_main(folder, "--split", "all")
    evaluate_main(folder, "--split", "all", "--ablation", "--ablation_input", "blank")
    assert {path.name for path in folder.glob("*_all.json")} == {"ablation_all.json", "evaluation_all.json"}


def test_what_knows_one_picture_only_says_so(several, run_train, evaluate_main, refusal, sample, tmp_path):
    import train  # its libraries take seconds to load

    flags = ["--freeze", "both", "--labels", *LABELS]
    assert "--cache_features false" in refusal(train.main, [*tiny_flags(sample, tmp_path), *flags])
    run, _ = run_train(*flags, "--cache_features", "false", name="other")
    assert "up to 2 pictures" in refusal(evaluate_main, run, "--robustness")
