"""Folds: a partition by whole groups, stratified, the same for the same rows; refused where one group is too large."""

from collections import Counter

import numpy as np
import pytest

from data_utils.splits.draw import hold_out, make_folds
from data_utils.splits.groups import check_fold_sizes, check_largest_group, group_ids
from data_utils.splits.split_file import Split
from data_utils.splits.splits import split_pairs
from modeling.errors import InputError

LABELS = ("negative", "neutral", "positive")


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


@pytest.mark.parametrize(
    ("labels", "groups", "num_folds", "named"),
    [
        *(([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], count, "allowed are 2 to 3") for count in (0, 1, 4)),
        ([0, 1, 2], [0, 1, 2], 2, "in 3 groups of .* at most 1 of one class; no folds can be made of so few"),
        ([0, 0, 1], [0, 0, 0], 2, "in 1 groups of .* at most 2 of one class; no folds can be made of so few"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(labels, groups, num_folds, named):
    with pytest.raises(InputError, match=named):
        make_folds(list("abcdef")[: len(labels)], labels, groups, num_folds=num_folds, seed=0)


def test_rare_class_is_noticed(caplog):
    make_folds(list("abcdef"), [0, 0, 0, 0, 0, 1], range(6), num_folds=3, seed=0)
    assert "rarest class has 1 rows" in caplog.text


@pytest.fixture
def sixty(make_pairs, make_arguments, load):
    """60 rows, of which the first `count` have the text; the pairs and their arguments."""

    def run(count, text="None", **options):
        rows = [
            (str(number), LABELS[number % 3], text if number < count else f"words {number}") for number in range(60)
        ]
        folder = make_pairs(rows)
        return load(folder, **options), make_arguments(folder, **options)

    return run


def fold(pairs, num_folds=5):
    groups = group_ids(pairs.dataset)
    folds = make_folds(pairs.dataset["guid"][:], pairs.dataset["label"][:], groups, num_folds=num_folds, seed=1)
    check_fold_sizes(folds, pairs.dataset, groups)
    return folds


def test_rows_by_themselves_are_no_group_however_few(make_pairs, load, caplog):
    pairs = load(make_pairs([(str(number), label) for number, label in enumerate(LABELS)]))
    check_largest_group(pairs.dataset, group_ids(pairs.dataset))
    assert not caplog.records


def test_a_text_in_most_rows_is_named(sixty):
    pairs, data = sixty(45)
    for divide in (lambda: split_pairs(pairs, data, seed=1), lambda: fold(pairs)):
        with pytest.raises(InputError) as error:
            divide()
        assert "45 of them have the text of '0', 'None'. If" in str(error.value)
        assert "empty these files" in str(error.value)
    with pytest.raises(InputError, match=r"The 5 folds would judge 48, 3, 3, 3, 3 rows"):
        fold(pairs)


def test_what_was_asked_for_by_hand_is_split(sixty):
    pairs, data = sixty(45, val_ratio=0.0)
    assert len(split_pairs(pairs, data, seed=1)[1]) == 60


def test_a_text_in_many_rows_is_told(sixty, caplog):
    pairs, data = sixty(20)
    _, train, val, _ = split_pairs(pairs, data, seed=1)
    assert (len(train), len(val)) == (54, 6)
    assert "20 of 60 rows can't be parted for validation: 20 of them have the text of '0', 'None'" in caplog.text
    assert len(fold(pairs, num_folds=3)) == 3
    caplog.clear()
    check_largest_group(pairs.dataset, range(60))
    assert not caplog.text


def test_a_picture_in_most_rows_is_named(make_pairs, make_arguments, load, photo):
    rows = [(str(number), "neutral", f"words {number}", photo(max(number, 7))) for number in range(12)]
    folder = make_pairs(rows)
    with pytest.raises(InputError, match=r"8 of 12 rows can't be parted.* have the picture of '0'.*delete these files"):
        split_pairs(load(folder), make_arguments(folder), seed=1)


def test_texts_of_addresses_and_rows_without_texts_are_described(sixty):
    pairs, _ = sixty(45, "http://t.co/1", allow_data_loss=True)
    with pytest.raises(InputError, match=r"45 of them have the text of '0'\. If"):
        fold(pairs)
    plain = pairs.dataset.select_columns(["guid", "text_key", "image_key"])
    with pytest.raises(InputError, match=r"45 of them have the text of '0'\. If"):
        check_largest_group(plain, group_ids(pairs.dataset))


def test_small_folds_may_differ_by_a_few_rows(sixty):
    pairs, _ = sixty(0)
    groups = group_ids(pairs.dataset)
    near = [Split((), tuple(map(str, range(count))), seed=None, val_ratio=None) for count in (1, 4)]
    check_fold_sizes(near, pairs.dataset, groups)
    far = [Split((), tuple(map(str, range(count))), seed=None, val_ratio=None) for count in (4, 11)]
    with pytest.raises(InputError, match=r"would judge 11, 4 rows"):
        check_fold_sizes(far, pairs.dataset, groups)
