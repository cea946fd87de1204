"""A saved model loaded in half precision: it runs, and answers as the one in float32 does, to its own digits."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from families import flags_for, save_family, small_config, train_and_save
from tiny import tiny_batch, tiny_model

from evaluation.predict.inference import classify
from evaluation.predict.joint_models import join_models
from evaluation.tasks.ablation import AskInputs
from modeling.classifier import SentimentClassifier
from modeling.fusion import FUSION_HEADS

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 2e-3}


def load(model: SentimentClassifier, folder: Path, dtype: torch.dtype) -> SentimentClassifier:
    model.save_pretrained(folder)
    half = SentimentClassifier.from_pretrained(folder, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    return half


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("fusion", FUSION_HEADS)
@pytest.mark.parametrize("architecture", ["vilbert", "clip"])
def test_every_head_answers_and_learns(architecture, fusion, dtype, tmp_path):
    model = tiny_model(architecture, fusion).eval()
    half = load(model, tmp_path, dtype).eval()
    batch, labels = tiny_batch(), torch.tensor([0, 1, 2, 0])
    batch["text_present"][0] = batch["image_present"][1] = False
    with torch.no_grad():
        expected, found = model.probabilities(model(**batch).logits), half.probabilities(half(**batch).logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)
    loss = half.train()(**batch, labels=labels).loss
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_models_that_share_towers_answer_as_one_does(dtype, tmp_path):
    half = load(tiny_model("clip", "co_attn", freeze="both"), tmp_path, dtype).eval()
    (joint,), batch = join_models([half, deepcopy(half)]), tiny_batch()
    batch |= {"row_index": torch.arange(len(batch["input_ids"]))}
    with torch.no_grad():
        expected, found = classify(half, batch)["probabilities"], AskInputs()(joint, batch)["full"]
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.stack([expected, expected], dim=1))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("family", ["deberta-v2", "focalnet", "mpnet", "siglip", "t5"])
def test_family_answers(family, dtype, tmp_path):
    config = small_config(family)
    model_class = save_family(config, tmp_path / "model")
    model = train_and_save(flags_for(config, model_class, tmp_path / "model"), tmp_path / "run").eval()
    half = load(model, tmp_path / "again", dtype).eval()
    with torch.no_grad():
        logits = half(**tiny_batch()).logits.float(), model(**tiny_batch()).logits
    torch.testing.assert_close(*logits, atol=0.1, rtol=0)
