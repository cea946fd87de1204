"""How many tokens a text tower takes: found by its own way of counting, whatever its settings claim."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import save_family, small_config, train_and_save
from tiny import plan_of

from modeling.errors import InputError
from training.flags.model import ModelArguments

# Positions that a family of 66 of them can't count: those up to its padding's, which is 0 here, but always 1 for MPNet.
FAMILIES = dict.fromkeys(("roberta", "xlm-roberta", "camembert", "longformer", "luke", "esm", "data2vec-text"), 1)
FAMILIES |= {"mpnet": 2, "bert": 0, "electra": 0}


def save(family: str, positions: int, folder: Path) -> Path:
    config = small_config(family)
    config.max_position_embeddings = positions
    save_family(config, folder)
    return folder


def plan(folder: Path, max_length: int | None) -> int:
    arguments = ModelArguments(model="vilbert", fusion="text_only", text_name=str(folder))
    return plan_of(arguments, max_length=max_length).max_length


_RARE = ("xlm-roberta", "camembert", "longformer", "luke", "data2vec-text", "electra")
EACH = pytest.mark.parametrize(
    ("family", "uncounted"),
    [pytest.param(*each, marks=[pytest.mark.slow] if each[0] in _RARE else []) for each in FAMILIES.items()],
)


@EACH
def test_limit_is_what_the_tower_counts(family, uncounted, tmp_path):
    folder = save(family, 66, tmp_path / "model")
    limit = 66 - uncounted
    assert plan(folder, None) == limit
    assert plan(folder, limit) == limit
    assert plan(folder, 12) == 12
    with pytest.raises(InputError, match=f"Got --max_length {limit + 1}; this text tower takes 2 to {limit} tokens"):
        plan(folder, limit + 1)
    # Builds, and runs a text of the limit's length.
    flags = {"model": "vilbert", "fusion": "text_only", "text_name": str(folder)}
    assert train_and_save(flags, tmp_path / "run").config.max_length == limit


@EACH
def test_limit_beyond_the_default_length_leaves_the_default(family, uncounted, tmp_path):
    folder = save(family, 130, tmp_path)
    assert plan(folder, None) == 128
    assert plan(folder, 130 - uncounted) == 130 - uncounted
    if uncounted:
        with pytest.raises(InputError, match=f"takes 2 to {130 - uncounted} tokens"):
            plan(folder, 130)


@pytest.mark.parametrize("family", ["t5", "xlnet"])
def test_tower_without_positions_is_limited_by_its_tokenizer(family, tmp_path):
    save_family(small_config(family), tmp_path)
    assert plan(tmp_path, None) == 128
    assert plan(tmp_path, 512) == 512
    with pytest.raises(InputError, match="takes 2 to 512 tokens"):
        plan(tmp_path, 10**9)
