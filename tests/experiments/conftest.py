"""Fixtures of recipes that train heads over frozen towers."""

import pytest
from tiny import LABELS, TEXTS, save_encoders


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of a text and a picture encoder, as if they were pretrained."""
    folder = tmp_path_factory.mktemp("encoders")
    save_encoders(folder)
    return folder


@pytest.fixture
def base_recipe(make_pairs, tmp_path, encoders):
    """Flags of a recipe on 60 pairs, each text of which stands in two of them."""
    rows = [(str(number), LABELS[number % 3], f"{TEXTS[LABELS[number % 3]]} {number % 30}") for number in range(60)]
    base = {"data_dir": str(make_pairs(rows)), "cache_dir": str(tmp_path / "cache"), "preprocessing_num_workers": 1}
    base |= {"text_name": str(encoders / "text"), "vision_name": str(encoders / "vision"), "projection_dim": 16}
    return base | {"model": "clip", "max_length": 12, "val_ratio": 0.25, "report_to": "none"}
