"""One text or picture in most rows: the split or the folds are refused, and it is named."""

import pytest

from data_utils.prepare.pairs import load_pairs
from data_utils.splits.folds import make_folds
from data_utils.splits.group_sizes import check_fold_sizes, check_largest_group
from data_utils.splits.split_file import Split
from data_utils.splits.splits import group_ids, split_pairs
from modeling.errors import InputError

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def load(make_pairs, make_arguments, small_picture):
    """60 rows, of which the first `count` have the text; the pairs and their arguments."""

    def run(count, text="None", **options):
        rows = [
            (str(number), LABELS[number % 3], text if number < count else f"words {number}") for number in range(60)
        ]
        folder = make_pairs(rows)
        data = make_arguments(folder, **options)
        return load_pairs(data.list_path(), pair_dir=folder, data=data, picture=small_picture), data

    return run


def fold(pairs, num_folds=5):
    groups = group_ids(pairs.dataset)
    folds = make_folds(pairs.dataset["guid"][:], pairs.dataset["label"][:], groups, num_folds=num_folds, seed=1)
    check_fold_sizes(folds, pairs.dataset, groups)
    return folds


def test_rows_by_themselves_are_no_group_however_few(make_pairs, make_arguments, small_picture, caplog):
    folder = make_pairs([(str(number), label) for number, label in enumerate(LABELS)])
    pairs = load_pairs(folder / "train.txt", pair_dir=folder, data=make_arguments(folder), picture=small_picture)
    check_largest_group(pairs.dataset, group_ids(pairs.dataset))
    assert not caplog.records


@pytest.mark.parametrize(("text", "shown"), [("None", "'None', a program's word for nothing"), ("hello", "'hello'.")])
def test_a_text_in_most_rows_is_named(load, text, shown):
    pairs, data = load(45, text)
    for divide in (lambda: split_pairs(pairs, data, seed=1), lambda: fold(pairs)):
        with pytest.raises(InputError) as error:
            divide()
        assert f"45 of them have the text of '0', {shown}" in str(error.value)
        assert "empty these files" in str(error.value)
        assert "45" in str(error.value)
    with pytest.raises(InputError, match=r"The 5 folds would judge 48, 3, 3, 3, 3 rows"):
        fold(pairs)


def test_what_was_asked_for_by_hand_is_split(load, tmp_path):
    pairs, data = load(45, val_ratio=0.0)
    assert len(split_pairs(pairs, data, seed=1)[1]) == 60


def test_a_text_in_many_rows_is_told(load, caplog):
    pairs, data = load(20)
    _, train, val, _ = split_pairs(pairs, data, seed=1)
    assert (len(train), len(val)) == (54, 6)
    assert "20 of 60 rows can't be parted for validation: 20 of them have the text of '0', 'None'" in caplog.text
    assert len(fold(pairs, num_folds=3)) == 3
    caplog.clear()
    check_largest_group(pairs.dataset, range(60))
    assert not caplog.text


def test_a_picture_in_most_rows_is_named(make_pairs, make_arguments, small_picture, photo):
    rows = [(str(number), "neutral", f"words {number}", photo(max(number, 7))) for number in range(12)]
    folder = make_pairs(rows)
    data = make_arguments(folder)
    pairs = load_pairs(data.list_path(), pair_dir=folder, data=data, picture=small_picture)
    with pytest.raises(InputError, match=r"8 of 12 rows can't be parted.* have the picture of '0'.*delete these files"):
        split_pairs(pairs, data, seed=1)


def test_texts_of_addresses_and_rows_without_texts_are_described(load):
    pairs, _ = load(45, "http://t.co/1", allow_data_loss=True)
    with pytest.raises(InputError, match=r"45 of them have the text of '0'\. If"):
        fold(pairs)
    plain = pairs.dataset.select_columns(["guid", "text_key", "image_key"])
    with pytest.raises(InputError, match=r"45 of them have the text of '0'\. If"):
        check_largest_group(plain, group_ids(pairs.dataset))


def test_small_folds_may_differ_by_a_few_rows(load):
    pairs, _ = load(0)
    groups = group_ids(pairs.dataset)
    near = [Split((), tuple(map(str, range(count))), seed=None, val_ratio=None) for count in (1, 4)]
    check_fold_sizes(near, pairs.dataset, groups)
    far = [Split((), tuple(map(str, range(count))), seed=None, val_ratio=None) for count in (4, 11)]
    with pytest.raises(InputError, match=r"would judge 11, 4 rows"):
        check_fold_sizes(far, pairs.dataset, groups)
