"""Batches: names, shapes and types."""

import pytest
import torch

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index, load_pairs
from data_utils.prepare.tokens import tokenize_pairs, train_wordpiece


def test_batch_of_loaded_rows(make_pairs, make_arguments, small_picture, tmp_path):
    folder = make_pairs(
        [
            ("1", "positive", "one two three four"),
            ("2", "null", "one"),
            ("3", "neutral", None),
            ("4", "negative", "two", None),
        ]
    )
    data = make_arguments(folder)
    pairs = load_pairs(folder / "train.txt", pair_dir=folder, data=data, picture=small_picture, for_prediction=True)
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
