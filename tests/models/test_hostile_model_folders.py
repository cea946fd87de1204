"""A named encoder's folder that was damaged, or made to do harm: one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from evaluations.test_hostile_run_folders import CONTENTS, changed, dump
from models.test_foreign_code import build, clip

from modeling.errors import InputError

__all__ = ["clip"]  # a fixture


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        build(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("config.json", ("text_config", "num_hidden_layers"), 10**7),
        ("config.json", ("text_config", "hidden_size"), "wide"),
        ("config.json", ("vision_config", "patch_size"), [None]),
        ("config.json", ("model_type",), []),
        ("preprocessor_config.json", ("image_mean",), None),
        ("preprocessor_config.json", ("image_std",), [0.5, float("nan"), 0.5]),
        ("preprocessor_config.json", ("resample",), "x"),
        ("preprocessor_config.json", ("crop_size", "height"), [None]),
        ("tokenizer_config.json", ("model_max_length",), "x"),
        ("tokenizer_config.json", ("pad_token",), None),
    ],
)
def test_wrong_values(clip: Path, name: str, place: tuple[str, ...], value: Any) -> None:
    path = clip / name
    path.write_bytes(dump(path, changed(json.loads(path.read_bytes()), place, value)))
    refusal(clip)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_damaged_and_other_files(clip: Path, name: str) -> None:
    path = clip / name
    for content in CONTENTS[:4]:
        path.write_bytes(content)
        refusal(clip)
    os.truncate(path, 2**38)
    refusal(clip)
    path.unlink()
    os.mkfifo(path)
    assert name in refusal(clip)
