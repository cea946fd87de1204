"""BatchReader: the batches of row-by-row reading, whatever was selected, and in any process."""

import pickle

import numpy as np
import pytest
import torch

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index, load_pairs
from data_utils.prepare.tokens import tokenize_pairs, train_wordpiece


@pytest.fixture
def prepared(make_pairs, make_arguments, small_picture, tmp_path):
    """200 tokenised rows in several record batches, some without a text or a picture, and their collator."""
    texts = {7: None, 150: None}
    pictures = {8: None, 64: None, 199: None}
    rows = [
        (str(row), "positive", texts.get(row, f"word {'more ' * (row % 5)}"), *([None] if row in pictures else []))
        for row in range(200)
    ]
    folder = make_pairs(rows)
    pairs = load_pairs(folder / "train.txt", pair_dir=folder, data=make_arguments(folder), picture=small_picture)
    tokenizer = train_wordpiece(["word more"], vocab_size=50, max_length=8)
    dataset, _ = tokenize_pairs(pairs.dataset, tokenizer, max_length=8, cache_dir=tmp_path)
    return dataset, PairCollator(pad_token_id=tokenizer.pad_token_id, image_size=32)


def check_equal(batch, expected):
    assert batch.keys() == expected.keys()
    for name, value in batch.items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("selected", [range(200), [150, 8, 7, 199, 0, 64, 63, 65]], ids=["all", "selected"])
def test_batches_equal_those_of_rows_read_one_by_one(prepared, selected):
    dataset, collator = prepared
    dataset = add_row_index(dataset.select(selected))
    reader = BatchReader(dataset)
    assert len(reader) == len(dataset)
    for rows in ([0], [5, 1, 3], list(range(len(dataset)))):
        expected = collator([dataset[row] for row in rows])
        check_equal(collator(reader.__getitems__(rows)), expected)
        check_equal(collator(pickle.loads(pickle.dumps(reader)).__getitems__(rows)), expected)
        check_equal(collator([reader[row] for row in rows]), expected)
    assert reader.lengths.tolist() == [len(tokens) for tokens in dataset["input_ids"]]


def test_rows_that_are_not_there_end_an_iteration(prepared):
    dataset, _ = prepared
    reader = BatchReader(dataset.select(range(3)))
    assert len(list(reader)) == 3
    with pytest.raises(IndexError):
        BatchReader(dataset)[200]


def test_an_added_column_of_bytes_is_handed_over(prepared):
    dataset, _ = prepared
    values = [np.full(row % 3, row, dtype=np.float32).tobytes() for row in range(200)]
    found = BatchReader(dataset.add_column("extra", values).select([9, 5])).__getitems__([0, 1])["extra"]
    assert [np.frombuffer(value, dtype=np.float32).tolist() for value in found] == [[], [5, 5]]
