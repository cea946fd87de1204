"""Splits: no group crosses, classes keep their shares, the same rows give the same split; files are checked."""

import json
import logging
import os
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from data_utils.splits.draw import make_split
from data_utils.splits.groups import group_ids, root_guid
from data_utils.splits.split_file import load_split, save_split
from data_utils.splits.splits import check_no_leak, split_indices, split_pairs
from modeling.errors import InputError


def random_rows(seed: int, count: int = 400) -> tuple[list[str], list[int], list[int]]:
    """Guids, labels of uneven shares, and groups of which most hold one row and some up to nine."""
    rng = random.Random(seed)
    guids = [str(number) for number in rng.sample(range(10_000), count)]
    labels = rng.choices([0, 1, 2], weights=[30, 10, 60], k=count)
    groups = [rng.randrange(30) if rng.random() < 0.25 else 1000 + row for row in range(count)]
    return guids, labels, groups


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("val_ratio", [0.1, 0.33])
def test_no_group_crosses_and_classes_keep_their_share(seed, val_ratio):
    guids, labels, groups = random_rows(seed)
    split = make_split(guids, labels, groups, val_ratio=val_ratio, seed=seed)
    assert sorted(split.train + split.val) == sorted(guids)
    check_no_leak(split, guids, groups)
    label_of = dict(zip(guids, labels, strict=True))
    taken = Counter(label_of[guid] for guid in split.val)
    for label, count in Counter(labels).items():
        assert taken[label] == round(val_ratio * count)  # single rows fill up what whole groups leave


def test_split_does_not_depend_on_row_order_but_on_the_seed():
    guids, labels, groups = random_rows(1)
    split = make_split(guids, labels, groups, val_ratio=0.1, seed=42)
    renumbered = {group: 7 * number for number, group in enumerate(sorted(set(groups), reverse=True))}
    rows = zip(guids, labels, [renumbered[group] for group in groups], strict=True)
    shuffled = zip(*random.Random(5).sample(list(rows), len(guids)), strict=True)
    again = make_split(*shuffled, val_ratio=0.1, seed=42)
    assert (again, again.sha256) == (split, split.sha256)
    other = make_split(guids, labels, groups, val_ratio=0.1, seed=43)
    assert other.val != split.val
    assert other.sha256 != split.sha256


def test_classes_of_large_groups_are_still_validated():
    guids = [str(row) for row in range(60)]
    groups = [row // 5 for row in range(60)]  # twelve groups of five, six per class: more than a tenth of the class
    labels = [row // 30 for row in range(60)]
    split = make_split(guids, labels, groups, val_ratio=0.1, seed=0)
    assert Counter(labels[int(guid)] for guid in split.val) == {0: 5, 1: 5}
    check_no_leak(split, guids, groups)


def test_class_of_one_group_stays_in_training():
    guids = [str(row) for row in range(41)]
    split = make_split(guids, [0] * 40 + [1], list(range(41)), val_ratio=0.9, seed=0)
    assert "40" in split.train
    assert len(split.val) == 36


def test_empty_part_is_refused():
    with pytest.raises(InputError, match=r"2 pairs in 1 groups.*validation part would be empty"):
        make_split(["1_t1", "1_t2"], [0, 0], [0, 0], val_ratio=0.5, seed=0)


def test_root_guid():
    assert {root_guid(guid) for guid in ("12", "12_t1", "12_i10", "12_t1_i2")} == {"12"}
    for guid in ("_t1", "a_x1", "1_t"):
        assert root_guid(guid) == guid


def test_groups_join_texts_pictures_and_copies_through_other_rows():
    dataset = Dataset.from_dict(
        {
            "guid": ["1", "2", "3", "4", "4_t1", "4_i2_t1", "5", "6", "7_t1", "7_t2"],
            "text_key": ["a", "a", "b", "c", "d", "e", None, None, "f", "g"],
            "image_key": ["p", "q", "q", "r", "s", "t", None, None, "u", "v"],
        }
    )
    groups = group_ids(dataset)
    assert groups.dtype == np.int64
    sets = {frozenset(np.flatnonzero(groups == group).tolist()) for group in groups}
    assert sets == {frozenset(rows) for rows in ([0, 1, 2], [3, 4, 5], [6], [7], [8, 9])}


def test_planted_leak_is_refused_unless_allowed(caplog):
    guids, groups = ["1", "2", "3", "4"], [0, 0, 1, 2]
    leaky = make_split(guids, [0, 0, 1, 1], [0, 1, 2, 3], val_ratio=0.5, seed=0)
    assert len({"1", "2"} & set(leaky.val)) == 1
    with pytest.raises(
        InputError, match=r"1 groups .*'[12]' \(training\) and '[12]' \(validation\).*--allow_leaky_split"
    ):
        check_no_leak(leaky, guids, groups)
    check_no_leak(leaky, guids, groups, allow=True)
    assert "too good" in caplog.text


def test_saved_split_is_read_back(tmp_path):
    guids, labels, groups = random_rows(3)
    split = make_split(guids, labels, groups, val_ratio=0.1, seed=42)
    save_split(split, tmp_path / "split.json")
    loaded = load_split(tmp_path / "split.json", known_guids=set(guids))
    assert loaded == split
    content = json.loads((tmp_path / "split.json").read_text())
    assert (content["seed"], content["sha256"], len(content["val"])) == (42, split.sha256, len(split.val))
    with pytest.raises(InputError, match="Cannot write"):
        save_split(split, tmp_path / "split.json" / "split.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content.pop("val"), r"has no val, where a list belongs"),
        (lambda content: content.update(train=[1, 2]), r"train\.0: 1, where a text belongs"),
        (lambda content: content["val"].append(content["train"][0]), "1 guids in two parts"),
        (lambda content: content["val"].append(content["val"][0]), "more than once"),
    ],
)
def test_changed_split_file_is_refused(tmp_path, change, named):
    path = tmp_path / "split.json"
    save_split(make_split(*random_rows(2, 40), val_ratio=0.2, seed=0), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=named):
        load_split(path)


def test_split_edited_by_hand_is_taken_with_a_notice(tmp_path, caplog):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["1", "2"], "val": ["3"]}))
    assert load_split(path).val == ("3",)
    assert caplog.text == ""
    save_split(make_split(*random_rows(2, 40), val_ratio=0.2, seed=0), path)
    content = json.loads(path.read_text())
    moved = content["val"].pop()
    path.write_text(json.dumps(content))
    assert moved not in load_split(path).val
    assert "was changed after it was written" in caplog.text


def test_test_part_is_saved_checked_and_found(tmp_path):
    split = replace(make_split(*random_rows(2, 40), val_ratio=0.2, seed=0), test=("x", "y"))
    save_split(split, tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == split
    assert split.sha256 != replace(split, test=()).sha256
    guids = [split.val[0], "y", "x", split.train[0]]
    assert [part.tolist() for part in split_indices(split, guids)] == [[3], [0], [1, 2]]
    check_no_leak(split, guids, [0, 1, 1, 2])
    with pytest.raises(InputError, match=r"\(validation\) and 'y' \(test\)"):
        check_no_leak(split, guids, [0, 0, 1, 2])
    save_split(replace(split, test=split.train[:1]), tmp_path / "split.json")
    with pytest.raises(InputError, match="1 guids in two parts"):
        load_split(tmp_path / "split.json")


def test_split_file_that_is_absent_endless_or_of_other_data_is_refused(tmp_path):
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 200 * 2**30)
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "list").write_text("[1]")
    (tmp_path / "bytes").write_bytes(b'{"train": ["\xff"]}')
    split = make_split(*random_rows(2, 40), val_ratio=0.2, seed=0)
    save_split(split, tmp_path / "split")
    refused = {"none": "cannot be read", "huge": "at most 67,108,864", "deep": "is no JSON", "/dev/zero": "no regular"}
    refused |= {"list": "a list, where a map belongs", "bytes": "is no JSON"}
    for name, named in (refused | {"split": r"38 guids of the split file .* are not in the list"}).items():
        with pytest.raises(InputError, match=named):
            load_split(tmp_path / name, known_guids=set(split.train[:2]))


def test_left_out_and_unused_rows_are_counted(caplog):
    split = make_split(["1", "2", "3", "4"], [0, 0, 1, 1], [0, 1, 2, 3], val_ratio=0.5, seed=0)
    kept = [*split.train[:1], "new", *split.val]
    with caplog.at_level(logging.INFO):
        train, val, test = split_indices(split, kept)
    assert (train.tolist(), val.tolist(), test.tolist()) == ([0], [2, 3], [])
    assert "1 guids of the split were left out" in caplog.text
    assert "1 rows are in no part" in caplog.text
    with pytest.raises(InputError, match="training part"):
        split_indices(split, split.val)


def test_split_of_loaded_pairs(make_pairs, make_arguments, load, photo, tmp_path):
    rows = [(str(row), ["negative", "positive"][row % 2]) for row in range(40)]
    rows += [("7_t1", "positive", "other words"), ("8_i1", "negative", "some words of pair 8", photo("x"))]
    rows += [("50", "negative", "Some words of pair 10 @you", photo("y")), ("51", "positive", "z", photo("11"))]
    rows += [("52", "great")]
    folder = make_pairs(rows)
    pairs = load(folder)
    split, train, val, _ = split_pairs(pairs, make_arguments(folder, val_ratio=0.25), seed=42)
    part = {guid: name for name in ("train", "val") for guid in getattr(split, name)}
    for twins in (("7", "7_t1"), ("8", "8_i1"), ("10", "50"), ("11", "51")):
        assert part[twins[0]] == part[twins[1]]
    assert len(train) + len(val) == len(pairs.dataset) == 44
    assert tuple(sorted(pairs.dataset["guid"][row] for row in val)) == split.val

    path = tmp_path / "split.json"
    save_split(split, path)
    again = split_pairs(pairs, make_arguments(folder, split_file=str(path)), seed=1)
    assert again[0] == split
    assert again[2].tolist() == val.tolist()

    crossing = [guid for guid in split.train if guid != "7_t1"], [*[g for g in split.val if g != "7_t1"], "7_t1"]
    if part["7"] == "val":
        crossing = [*split.train, "7_t1"], [guid for guid in split.val if guid != "7_t1"]
    leaky = type(split)(tuple(sorted(crossing[0])), tuple(sorted(crossing[1])), 42, 0.25)
    save_split(leaky, path)
    with pytest.raises(InputError, match="'7_t1'"):
        split_pairs(pairs, make_arguments(folder, split_file=str(path)), seed=1)
    assert split_pairs(pairs, make_arguments(folder, split_file=str(path), allow_leaky_split=True), seed=1)[0] == leaky
