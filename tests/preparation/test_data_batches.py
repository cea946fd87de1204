"""Batches: names, shapes and types; BatchReader gives those of row-by-row reading, whatever was selected."""

import pickle

import numpy as np
import pytest
import torch

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from data_utils.prepare.tokens import tokenize_pairs, train_wordpiece


@pytest.fixture
def prepared(make_pairs, load, tmp_path):
    """200 tokenised rows in several record batches, some without a text or a picture, and their collator."""
    texts = {7: None, 150: None}
    pictures = {8: None, 64: None, 199: None}
    rows = [
        (str(row), "positive", texts.get(row, f"word {'more ' * (row % 5)}"), *([None] if row in pictures else []))
        for row in range(200)
    ]
    folder = make_pairs(rows)
    pairs = load(folder)
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


def test_batch_of_loaded_rows(make_pairs, load, tmp_path):
    folder = make_pairs(
        [
            ("1", "positive", "one two three four"),
            ("2", "null", "one"),
            ("3", "neutral", None),
            ("4", "negative", "two", None),
        ]
    )
    pairs = load(folder, for_prediction=True)
    tokenizer = train_wordpiece(["one two three four"], vocab_size=100, max_length=8)
    dataset, _ = tokenize_pairs(pairs.dataset, tokenizer, max_length=8, cache_dir=tmp_path)
    dataset = add_row_index(dataset.select([3, 2, 1, 0]))
    batch = PairCollator(pad_token_id=tokenizer.pad_token_id, image_size=32)([dataset[row] for row in range(4)])

    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
    assert shapes == {
        "input_ids": ((4, 6), torch.int64),
        "attention_mask": ((4, 6), torch.int64),
        "pixel_values": ((4, 3, 32, 32), torch.uint8),
        "text_present": ((4,), torch.bool),
        "image_present": ((4,), torch.bool),
        "labels": ((4,), torch.int64),
        "row_index": ((4,), torch.int64),
    }
    assert batch["attention_mask"].sum(1).tolist() == [3, 2, 3, 6]
    assert torch.equal(batch["input_ids"] == tokenizer.pad_token_id, batch["attention_mask"] == 0)
    assert batch["text_present"].tolist() == [True, False, True, True]
    assert batch["image_present"].tolist() == [False, True, True, True]
    assert batch["pixel_values"][0].max() == 0
    assert batch["pixel_values"][3].numpy().tobytes() == dataset[3]["image"]
    assert batch["labels"].tolist() == [0, 1, -100, 2]
    assert batch["row_index"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("worker", [None, object()], ids=["main process", "worker"])
def test_pictures_go_straight_into_pinned_memory_but_in_workers(monkeypatch, worker):
    pinned = []

    def empty(shape, *, dtype, pin_memory):
        pinned.append(pin_memory)
        return torch.zeros(shape, dtype=dtype)

    monkeypatch.setattr("data_utils.prepare.collator.torch.empty", empty)
    monkeypatch.setattr("data_utils.prepare.collator.get_worker_info", lambda: worker)
    row = {"text_present": True, "image_present": True, "label": 0, "row_index": 0, "image": bytes([7]) * 12}
    batch = PairCollator(pad_token_id=0, image_size=2, pin=True)([row])
    assert batch["pixel_values"].unique().tolist() == [7]
    assert pinned == [worker is None]
