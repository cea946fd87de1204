"""Augmented copies and splits: trained on where their parent is, judged nowhere, and without a say in the split."""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.splits.draw import hold_out, make_folds, make_split, with_copies
from data_utils.splits.groups import find_copies, root_guid
from data_utils.splits.split_file import Split, save_split
from data_utils.splits.splits import check_no_leak, split_indices, split_pairs
from modeling.errors import InputError


@pytest.fixture
def originals():
    """300 rows, some in groups of several, with uneven classes."""
    rng = np.random.default_rng(5)
    guids = [f"g{number}" for number in rng.permutation(300)]
    return guids, rng.choice(3, 300, p=[0.1, 0.3, 0.6]).tolist(), rng.integers(0, 200, 300).tolist()


@pytest.fixture
def augmented(originals):
    """The same with two copies of every third row, before, between and after the others, and copies of copies."""
    guids, labels, groups = (list(column) for column in originals)
    for row in range(0, 300, 3):
        for place, suffix in ((0, "_t1"), (len(guids) // 2, "_i1"), (len(guids), "_i1_t2")):
            guid = f"{originals[0][row]}{suffix}"
            for column, value in ((guids, guid), (labels, originals[1][row]), (groups, originals[2][row])):
                column.insert(place, value)
    return guids, labels, groups


def check_copies(split, guids, groups):
    """Every copy is trained on, unless its group is held out."""
    group_of = dict(zip(guids, groups, strict=True))
    held_out = {group_of[guid] for guid in split.val + split.test}
    copies = {guid for guid, is_copy in zip(guids, find_copies(guids), strict=True) if is_copy}
    assert not copies & {*split.val, *split.test}
    assert copies & set(split.train) == {guid for guid in copies if group_of[guid] not in held_out}
    assert not {group_of[guid] for guid in split.train} & held_out


def without_copies(split):
    return replace(split, train=tuple(guid for guid in split.train if root_guid(guid) == guid))


def test_only_copies_of_listed_rows_are_copies():
    guids = ["1", "1_t1", "1_t1_i2", "2_t1", "2_t1_i1", "3_t1", "3_t2", "4_x1"]
    assert find_copies(guids).tolist() == [False, True, True, False, True, False, False, False]
    assert find_copies([]).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_ratio", [0, 0.1, 0.4])
def test_copies_have_no_say_in_the_split(originals, augmented, seed, val_ratio):
    plain = make_split(*originals, val_ratio=val_ratio, seed=seed)
    split = make_split(*augmented, val_ratio=val_ratio, seed=seed)
    assert without_copies(split) == plain
    assert len(split.train) > len(plain.train)
    check_copies(split, augmented[0], augmented[2])
    check_no_leak(split, augmented[0], augmented[2])


@pytest.mark.parametrize("num_folds", [2, 5])
def test_folds_judge_every_row_once_and_no_copy(originals, augmented, num_folds):
    plain = make_folds(*originals, num_folds=num_folds, seed=3)
    folds = make_folds(*augmented, num_folds=num_folds, seed=3)
    assert tuple(map(without_copies, folds)) == plain
    assert sorted(guid for fold in folds for guid in fold.val) == sorted(originals[0])
    for fold in folds:
        check_copies(fold, augmented[0], augmented[2])
    used = Counter(guid for fold in folds for guid in fold.train)
    assert set(used.values()) == {num_folds - 1}  # copies too


def test_inner_validation_of_a_fold_has_no_copies_either(originals, augmented):
    for plain, fold in zip(*(make_folds(*rows, num_folds=3, seed=3) for rows in (originals, augmented)), strict=True):
        inner = hold_out(fold, *augmented, val_ratio=0.2, seed=3)
        assert without_copies(inner) == hold_out(plain, *originals, val_ratio=0.2, seed=3)
        check_copies(inner, augmented[0], augmented[2])


def test_copy_that_is_like_a_held_out_row_is_not_trained_on():
    guids, groups = ["1", "2", "1_t1", "2_t1", "3"], [0, 1, 0, 0, 2]
    for train, val, added in (
        (("2", "3"), ("1",), []),
        (("1", "2"), ("3",), ["1_t1", "2_t1"]),
        (("3",), (), []),  # of a row that is in no part
    ):
        split = with_copies(Split(train, val, seed=None, val_ratio=None), guids, groups)
        assert split.train == tuple(sorted([*train, *added]))


def test_copies_that_are_left_out_are_told_apart_from_unused_rows(caplog):
    guids = ["1", "1_t1", "2", "2_t1", "3"]
    split = replace(make_split(guids[:4], [0, 0, 0, 0], [0, 0, 1, 1], val_ratio=0.5, seed=0))
    with caplog.at_level(logging.INFO):
        train, val, _ = split_indices(split, guids)
    assert (len(train), len(val)) == (2, 1)
    assert "1 training rows are copies" in caplog.text
    assert "1 copies are left out" in caplog.text
    assert "1 rows are in no part" in caplog.text


def test_split_that_holds_out_a_copy_is_refused_unless_allowed(caplog):
    split = replace(make_split(["1", "2"], [0, 0], [0, 1], val_ratio=0.5, seed=0), train=("1",), val=("2", "2_t1"))
    rows = (["1", "2", "2_t1"], [0, 1, 1])
    with pytest.raises(InputError, match=r"1 augmented copies .* '2_t1' \(validation\).*--allow_leaky_split"):
        check_no_leak(split, *rows)
    check_no_leak(split, *rows, allow=True)
    assert "too good" in caplog.text


def test_split_file_of_the_plain_list_serves_the_augmented_one(make_pairs, make_arguments, small_picture, tmp_path):
    rows = [(str(row), ["negative", "positive"][row % 2]) for row in range(20)]
    folder = make_pairs(rows + [(f"{row}_t1", label, f"words like those of {row}") for row, label in rows[:10]])
    data = make_arguments(folder, val_ratio=0.25)
    pairs = load_pairs(PairList(folder / "train.txt", folder), data=data, picture=small_picture)
    split, *parts = split_pairs(pairs, data, seed=42)
    assert [sum(find_copies(pairs.dataset["guid"][:])[part]) for part in parts[1:]] == [0, 0]
    copies = {f"{guid}_t1" for guid in split.train} & set(pairs.known_guids)
    assert copies
    assert copies == set(split.train) - set(without_copies(split).train)

    path = tmp_path / "split.json"
    save_split(without_copies(split), path)
    again, *rows_again = split_pairs(pairs, make_arguments(folder, split_file=str(path)), seed=1)
    assert again == split
    assert [part.tolist() for part in rows_again] == [part.tolist() for part in parts]

    fewer = replace(split, train=tuple(sorted(set(split.train) - {min(copies)})))
    save_split(fewer, path)
    assert split_pairs(pairs, make_arguments(folder, split_file=str(path)), seed=1)[0] == fewer
