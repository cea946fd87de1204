"""Folds: a partition by whole groups, stratified, the same for the same rows."""

from collections import Counter

import numpy as np
import pytest

from data_utils.splits.folds import hold_out, make_folds
from modeling.errors import InputError


@pytest.fixture
def rows():
    """200 guids with rare and frequent classes, and group numbers of 1 to 4 rows each."""
    rng = np.random.default_rng(3)
    guids = [f"g{number}" for number in rng.permutation(200)]
    return guids, rng.choice(3, 200, p=[0.1, 0.3, 0.6]).tolist(), rng.integers(0, 110, 200).tolist()


def test_every_row_is_judged_once_and_no_group_crosses(rows):
    guids, labels, groups = rows
    folds = make_folds(guids, labels, groups, num_folds=5, seed=1)
    assert sorted(guid for fold in folds for guid in fold.val) == sorted(guids)
    group_of = dict(zip(guids, groups, strict=True))
    for fold in folds:
        assert sorted(fold.train + fold.val) == sorted(guids)
        assert not {group_of[guid] for guid in fold.train} & {group_of[guid] for guid in fold.val}


def test_classes_have_their_share_in_every_fold(rows):
    guids, labels, groups = rows
    label_of = dict(zip(guids, labels, strict=True))
    for fold in make_folds(guids, labels, groups, num_folds=4, seed=1):
        counts = Counter(label_of[guid] for guid in fold.val)
        assert all(abs(counts[label] - labels.count(label) / 4) <= 2 for label in range(3))


def test_order_of_rows_and_group_numbers_have_no_say(rows):
    guids, labels, groups = rows
    folds = make_folds(guids, labels, groups, num_folds=3, seed=5)
    order = np.random.default_rng(0).permutation(len(guids))
    renamed = np.random.default_rng(1).permutation(110)
    again = [[column[row] for row in order] for column in (guids, labels, [int(renamed[group]) for group in groups])]
    assert make_folds(*again, num_folds=3, seed=5) == folds
    assert make_folds(guids, labels, groups, num_folds=3, seed=6) != folds


@pytest.mark.parametrize("val_ratio", [0, 0.2])
def test_what_judges_a_fold_chooses_nothing(rows, val_ratio):
    guids, _, groups = rows
    group_of = dict(zip(guids, groups, strict=True))
    for fold in make_folds(*rows, num_folds=4, seed=1):
        split = hold_out(fold, *rows, val_ratio=val_ratio, seed=1)
        assert split.test == fold.val
        assert sorted(split.train + split.val + split.test) == sorted(guids)
        assert len(split.val) == pytest.approx(val_ratio * 150, abs=8)
        parts = [{group_of[guid] for guid in part} for part in (split.train, split.val, split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("num_folds", [0, 1, 4])
def test_impossible_numbers_are_refused(num_folds):
    with pytest.raises(InputError, match=r"allowed are 2 to 3"):
        make_folds(list("abcdef"), [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], num_folds=num_folds, seed=0)


@pytest.mark.parametrize(("labels", "groups"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 1], [0, 0, 0])])
def test_rows_that_allow_no_folds_are_refused_with_the_reason(labels, groups):
    with pytest.raises(InputError, match=r"no folds can be made, since even 2 take 2 groups and 2 pairs of one class"):
        make_folds(list("abc"), labels, groups, num_folds=2, seed=0)


def test_rare_class_is_noticed(caplog):
    make_folds(list("abcdef"), [0, 0, 0, 0, 0, 1], range(6), num_folds=3, seed=0)
    assert "rarest class has 1 rows" in caplog.text
