"""Whole trainings over towers of other families: frozen, run once and kept, or trained."""

from __future__ import annotations

import json

import pytest
from families import save_family, small_config

import train


@pytest.mark.parametrize("flags", [["--freeze", "none"], ["--freeze", "both", "--cache_features", "true"]])
@pytest.mark.parametrize(
    ("text", "picture"),
    [("t5", "swin"), ("deberta-v2", "resnet"), ("xlnet", "focalnet"), ("longformer", "convnext")],
)
def test_families_train_on_rows(text, picture, flags, sample, tmp_path):
    for family in (text, picture):
        save_family(small_config(family), tmp_path / family)
    words = ["--data_dir", str(sample), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run")]
    words += ["--model", "vilbert", "--fusion", "co_attn", "--max_steps", "2", "--report_to", "none"]
    words += ["--text_name", str(tmp_path / text), "--vision_name", str(tmp_path / picture)]
    train.main([*words, "--preprocessing_num_workers", "1", *flags])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["val"]["loss"] < 10
