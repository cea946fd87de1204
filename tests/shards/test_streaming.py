"""The stream: every row once an epoch on any number of ranks and workers, in an order that can be gone on with."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from conftest import LABELS
from tiny import TOKENIZER

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.prepare.tokens import tokenize_pairs
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_set import find_shards
from data_utils.sources.quarantine import Reason
from data_utils.stream import loader
from data_utils.stream.loader import ENTRIES, ERROR, PairStream, StreamLoader
from data_utils.stream.order import ShuffleOrder, StreamSettings
from data_utils.stream.part_cache import load_part
from data_utils.stream.rows import NumberedRow, RowPreparer, read_label
from modeling.errors import InputError


@pytest.fixture
def shards(write_shards, numbered_rows):
    """Factory: shards of `count` pairs (7 a shard), all for training; a tar without its manifest isn't counted."""

    def make(count=40, *, kind="parquet", manifest=True, rows=None):
        folder = write_shards(rows or numbered_rows(count), "--shard_format", kind, "--val_ratio", "0")
        if not manifest:
            (folder / MANIFEST).unlink()
        return find_shards(str(folder), "train")

    return make


@pytest.fixture
def prepare(small_picture):
    """Factory of what a run prepares rows with."""
    return lambda on_bad_pair="mask": RowPreparer(TOKENIZER, 16, small_picture, LABELS, "report", on_bad_pair)


@pytest.fixture
def stream(prepare, small_picture):
    """Factory of one rank's stream."""

    def make(shards, *, rank=0, world_size=1, buffer_size=10, drop_last=False, num_batches=None, seed=1):
        settings = StreamSettings(seed, 4, world_size, rank, buffer_size, drop_last, num_batches)
        collator = PairCollator(TOKENIZER.pad_token_id, small_picture.image_size)
        return PairStream(shards, settings, prepare=prepare(), collator=collator)

    return make


def read(stream, num_workers=0, epoch=0, skipped=0):
    stream.start_epoch(epoch, skipped=skipped)
    return list(StreamLoader(stream, num_workers=num_workers))


def rows_of(batches):
    return [row for batch in batches for row in batch["row_index"][batch["labels"] != NO_LABEL_ID].tolist()]


@pytest.mark.parametrize(
    ("kind", "world_size", "num_workers"),
    [("parquet", 1, 0), ("webdataset", 1, 2), ("parquet", 2, 0), ("parquet", 3, 2), ("webdataset", 5, 0)],
)
def test_every_row_once_and_as_many_batches_on_every_rank(shards, stream, kind, world_size, num_workers):
    found = shards(41, kind=kind)
    ranks = [read(stream(found, rank=rank, world_size=world_size), num_workers) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {-(-41 // (4 * world_size))}
    assert sorted(row for batches in ranks for row in rows_of(batches)) == list(range(41))


def test_drop_last_gives_full_batches_only(shards, stream):
    found = shards(41)
    ranks = [read(stream(found, rank=rank, world_size=2, drop_last=True), 2) for rank in range(2)]
    assert [[len(batch["labels"]) for batch in batches] for batches in ranks] == [[4] * 5] * 2
    counts = Counter(row for batches in ranks for row in rows_of(batches))
    assert (len(counts), set(counts.values())) == (40, {1})


def test_rank_without_rows_left_gets_a_batch_that_counts_nothing(shards, stream):
    found = shards(9)
    last = [read(stream(found, rank=rank, world_size=2))[-1] for rank in range(2)]
    real = [int((batch["labels"] != NO_LABEL_ID).sum()) for batch in last]
    assert sorted(real) == [0, 1]
    empty = last[real.index(0)]
    assert not empty["text_present"].any()
    assert empty["pixel_values"].dtype == torch.uint8
    with pytest.raises(InputError, match="too few for 10 processes"):
        read(stream(found, world_size=10))


def test_order_depends_on_seed_and_epoch_alone(shards, stream):
    found = shards(40)
    first = rows_of(read(stream(found)))
    assert first == rows_of(read(stream(found)))
    others = [rows_of(read(stream(found), epoch=1)), rows_of(read(stream(found, seed=2)))]
    assert first != others[0] != others[1] != first
    # Mixed within the buffer, not only shard by shard.
    assert sum(abs(a - b) > 1 for a, b in pairwise(first)) > 20


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("num_workers", "skipped"), [(0, 1), (0, 7), (2, 4), (2, 9)])
def test_skipped_batches_are_not_read_and_change_nothing(
    shards, stream, counted, num_workers, skipped, monkeypatch, tmp_path
):
    found = shards(41, kind="webdataset", manifest=counted)
    options = {} if counted else {"num_batches": 11}
    whole = read(stream(found, **options), num_workers)
    log = tmp_path / "log"

    def logging_reads(*args, **kwargs):
        for number, row in iterate_shard(*args, **kwargs):
            yield number, lambda read=row: (log.open("a").write("x"), read())[1]

    monkeypatch.setattr(loader, "iterate_shard", logging_reads)
    batches = read(stream(found, **options), num_workers, skipped=skipped)
    assert all(batch == {} for batch in batches[:skipped])
    for batch, expected in zip(batches[skipped:], whole[skipped:], strict=True):
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch if name != ENTRIES)
    if counted:
        assert len(log.read_text()) == 41 - 4 * skipped, "only what is still to come"


def test_buffer_never_holds_more_rows_than_asked_for():
    order = ShuffleOrder(100, buffer_size=8, seed="s")
    drawn = []
    while (position := order.draw()) is not None:
        drawn.append(position)
        assert len(order.waiting) <= 8
        assert position < len(drawn) + 8, "so no reader has to go further ahead"
    assert sorted(drawn) == list(range(100))


def test_order_of_uncounted_tars_does_not_depend_on_their_end(shards, stream):
    found = shards(20, kind="webdataset", manifest=False)
    short, long = (rows_of(read(stream(found, num_batches=count), 2)) for count in (6, 12))
    assert len(short) == 24
    assert long[:24] == short


@pytest.mark.parametrize("num_shards", [6, 1])
def test_uncounted_tars_go_round_and_no_two_workers_read_a_row(shards, stream, num_shards):
    found = shards(7 * num_shards, kind="webdataset", manifest=False)
    lanes = []
    for rank in range(2):
        batches = read(stream(found, rank=rank, world_size=2, num_batches=10 * num_shards, buffer_size=2), 2)
        for worker in range(2):
            pictures = (picture for batch in batches[worker::2] for picture in batch["pixel_values"].flatten(1))
            lanes.append({tuple(picture.tolist()) for picture in pictures})
    assert sum(map(len, lanes)) == len(set().union(*lanes)) == 7 * num_shards


def test_rows_are_those_of_the_prepared_data(shards, prepare, make_arguments, small_picture, tmp_path):
    rows = [("1", "positive", "Great http://t.co/a"), ("2", "negative", None), ("3", "neutral", "@me", b"x")]
    rows += [("4", "neutral", "so so", None), ("5", "positive")]
    dataset, quarantine = load_part(shards(rows=rows), prepare(), cache_dir=tmp_path / "cache")
    arguments = make_arguments(tmp_path / "pairs")
    pairs = load_pairs(
        PairList(tmp_path / "pairs" / "train.txt", tmp_path / "pairs"), data=arguments, picture=small_picture
    )
    expected, _ = tokenize_pairs(pairs.dataset, TOKENIZER, max_length=16, cache_dir=tmp_path / "cache")
    by_guid = {row["guid"]: row for row in expected}
    # Row 3 has a text of names alone beside a broken picture: sharded without the picture, dropped by both.
    assert {row["guid"] for row in dataset} == by_guid.keys() == {"1", "2", "4", "5"}
    for row in dataset:
        for name in ("label", "text", "input_ids", "image", "text_present", "image_present"):
            assert row[name] == by_guid[row["guid"]][name], name
    assert {(entry.guid, entry.reason, entry.action) for entry in quarantine} == {
        ("2", "missing_text", "masked"),
        ("3", "empty_text", "dropped"),
        ("3", "missing_image", "dropped"),
        ("4", "missing_image", "masked"),
    }


@pytest.mark.parametrize(("mode", "kept"), [("mask", [True, True, False]), ("drop", [True, False, False])])
def test_faulty_rows_keep_their_place_but_not_their_label(shards, prepare, mode, kept):
    found = shards(
        rows=[("1", "positive"), ("2", "positive", "x", b"x"), ("3", "positive", "@you", b"x"), ("4", "neutral")]
    )
    rows = [NumberedRow(0, "s", read()) for _, read in iterate_shard(found.shards[0], "parquet")]
    prepared, entries = prepare(mode)(sorted(rows, key=lambda row: row.row.guid))
    assert [row["label"] != NO_LABEL_ID for row in prepared] == [*kept, True]
    assert [row["text_present"] or row["image_present"] for row in prepared] == [*kept, True]
    assert len(entries) == 3


def test_fault_is_reported_by_its_row_and_a_broken_shard_ends_the_stream(shards, stream):
    found = shards(rows=[(str(number), "positive", "@you") for number in range(10)])
    faults = [read(stream(found), epoch=epoch) for epoch in (0, 1)]
    assert [{entry.row for batch in batches for entry in batch[ENTRIES]} for batches in faults] == [{*range(1, 11)}] * 2
    with open(found.shards[1].local_path, "r+b") as file:
        file.truncate(50)
    for num_workers in (0, 2):
        assert any("can't be read" in batch.get(ERROR, "") for batch in read(stream(found), num_workers))


def test_faults_of_all_passes_name_the_same_rows_while_their_numbers_differ(shards, stream):
    rows = [(str(number), "positive", "@you" if number % 2 else "words") for number in range(10)]
    found = shards(kind="webdataset", manifest=False, rows=rows)
    batches = read(stream(found, num_batches=20), 2)  # 80 rows: 8 passes
    assert len({(entry.row, entry.guid) for batch in batches for entry in batch[ENTRIES]}) == 5
    assert len({row for batch in batches for row in batch["row_index"].tolist()}) == 80


@pytest.mark.parametrize(
    ("labels", "label", "number"),
    [
        *[(LABELS, label, 1) for label in ("neutral", " neutral ", 1, "1", 1.0)],
        *[(("1", "2", "3"), label, 0) for label in (1, "1")],  # a name before it is a number
        *[(("-1", "0", "1"), label, 1) for label in ("0", 0.0)],
        (("n\u00e9gatif", "positif"), "ne\u0301gatif", 0),  # in another spelling of Unicode
    ],
)
def test_label_is_a_name_or_a_number(labels, label, number):
    assert read_label(label, labels) == (number, None)


@pytest.mark.parametrize(
    ("labels", "label", "reason"),
    [
        *[(LABELS, label, Reason.NO_LABEL) for label in (None, float("nan"), "null", "")],
        *[(LABELS, label, Reason.UNKNOWN_LABEL) for label in (3, "Glad", 1.5, float("inf"), "1" * 11, "1" * 5000)],
        (("-1", "0", "1"), 2, Reason.UNKNOWN_LABEL),  # no place among classes that are numbers
    ],
)
def test_label_that_says_no_class_is_a_fault(labels, label, reason):
    number, fault = read_label(label, labels)
    assert (number, fault.reason) == (NO_LABEL_ID, reason)
