"""--group_by near: nearly equal rows are never parted, in splits, folds and shards; and streams refuse it."""

import json
import random

import pytest
from conftest import LABELS, draw_photo, tiny_flags

from data_utils.splits.groups import find_groups, group_ids
from data_utils.splits.splits import split_pairs
from modeling.errors import InputError

PARTNERS = 40


@pytest.fixture
def near_pairs(make_pairs):
    """80 rows, each of which has a near twin of its own: every second one in its text, the others in their picture."""
    rows, rng = [], random.Random(0)
    for number in range(PARTNERS):
        label, picture = LABELS[number % 3], draw_photo(number, (160, 120))
        text = " ".join("".join(rng.choices("abcdefghiklmnoprstu", k=6)) for _ in range(7))
        rows.append((str(number), label, text, picture))
        other = (
            (f"RT @x: {text.upper()} #t", draw_photo(f"other {number}"))
            if number % 2
            else (None, picture.resize((90, 70)))
        )
        rows.append((f"{number}b", label, *other))
    return make_pairs(rows)


def parted(split):
    part_of = {guid: part for part, guids in split.parts.items() for guid in guids}
    return [number for number in range(PARTNERS) if part_of[str(number)] != part_of[f"{number}b"]]


def test_near_twins_stay_in_one_part_of_a_split(near_pairs, load, make_arguments):
    pairs = load(near_pairs)
    equal, near = (
        split_pairs(pairs, make_arguments(near_pairs, val_ratio=0.3, group_by=by), seed=1)[0]
        for by in ("equal", "near")
    )

    assert len(parted(equal)) > PARTNERS / 5
    assert parted(near) == []
    assert equal.sha256 != near.sha256


def test_near_groups_hold_the_equal_ones(near_pairs, load):
    dataset = load(near_pairs).dataset
    equal, near = group_ids(dataset), find_groups(dataset, "near")

    assert len(set(near.tolist())) == PARTNERS
    assert all(
        len({near[row] for row in range(len(equal)) if equal[row] == group}) == 1 for group in set(equal.tolist())
    )


def test_saved_split_that_parts_near_twins_is_refused(near_pairs, load, make_arguments, tmp_path):
    pairs = load(near_pairs)
    split = split_pairs(pairs, make_arguments(near_pairs, val_ratio=0.3), seed=1)[0]
    (tmp_path / "split.json").write_text(json.dumps({part: list(guids) for part, guids in split.parts.items()}))
    options = {"split_file": str(tmp_path / "split.json"), "group_by": "near"}

    with pytest.raises(InputError, match="--allow_leaky_split"):
        split_pairs(pairs, make_arguments(near_pairs, **options), seed=1)


def test_shards_take_it_and_streams_refuse_it(write_shards, refusal, tmp_path):
    import train

    text = "our train to Harwick was late again this morning"
    rows = [(str(row), LABELS[row % 3], f"{text}, a mess{'!' * (row % 2)} {row // 2 * 7919}") for row in range(30)]

    folder = write_shards(rows, "--group_by", "near", "--val_ratio", "0.0")

    assert (folder / "shards.json").exists()
    flags = [*tiny_flags(folder, tmp_path), "--streaming", "--group_by", "near", "--max_steps", "1"]
    assert "data_utils.shard" in refusal(train.main, flags)
