"""A training that would make no update is refused before anything is prepared, or at the latest before the model is."""

import pytest

from modeling.errors import InputError
from training.engine.updates import check_updates, warn_of_idle_updates
from training.flags.arguments import SentimentTrainingArguments

FULL_BATCHES = ("--dataloader_drop_last", "true", "--per_device_train_batch_size")


def test_too_few_samples_are_refused_before_the_list_is_read(run_train, refusal, tmp_path):
    message = refusal(run_train, "--max_train_samples", "20", *FULL_BATCHES, "64", data_dir=tmp_path / "nowhere")
    assert message.startswith("error: 20 rows for training don't fill one batch of --per_device_train_batch_size 64,")
    assert "Leave --dataloader_drop_last out, or take at most 20." in message
    assert not (tmp_path / "run").exists()


def test_too_few_rows_are_refused_before_the_model_is_built(run_train, refusal, monkeypatch):
    monkeypatch.setattr("training.experiments.training.build_model", None)
    assert "54 rows for training don't fill one batch" in refusal(run_train, *FULL_BATCHES, "55")


def test_the_smallest_fold_must_fill_a_batch(run_train, refusal, monkeypatch):
    monkeypatch.setattr("training.experiments.training.build_model", None)
    message = refusal(run_train, "--folds", "2", *FULL_BATCHES, "40")
    assert "27 rows for training don't fill one batch" in message


def test_too_few_streamed_rows_are_refused(run_train, refusal, write_shards, numbered_rows, monkeypatch):
    monkeypatch.setattr("training.experiments.training.build_model", None)
    shards = write_shards(numbered_rows(20))
    message = refusal(run_train, "--streaming", *FULL_BATCHES, "30", data_dir=shards)
    assert "17 rows are too few for 1 processes with --per_device_train_batch_size 30" in message


def test_updates_that_change_nothing_are_told(run_train, caplog):
    words = "(1) lie in its warm-up of 1, which begins at a learning rate of 0 and reaches 0 of"
    assert words in run_train("--max_steps", "1")[1]

    def warn(**options):
        caplog.clear()
        warn_of_idle_updates(
            8, SentimentTrainingArguments(**{"report_to": "none", "head_learning_rate": 1e-3, **options})
        )
        return caplog.text

    assert "reaches 0.1 of its peak" in warn(max_steps=2, warmup_steps=10)
    assert "warm-up" not in warn(max_steps=1, warmup_steps=0)
    assert "The learning rates are 0" in warn(max_steps=2, learning_rate=0.0, head_learning_rate=0.0)


@pytest.mark.parametrize(
    ("rows", "size", "world_size", "options", "is_refused"),
    [
        (7, 8, 1, {"dataloader_drop_last": True}, True),
        (8, 8, 1, {"dataloader_drop_last": True, "gradient_accumulation_steps": 4}, False),
        (15, 8, 2, {"dataloader_drop_last": True}, True),
        (16, 8, 2, {"dataloader_drop_last": True}, False),
        (1, 8, 2, {"dataloader_drop_last": True}, True),
    ],
)
def test_batches_are_counted_as_they_are_dealt(monkeypatch, rows, size, world_size, options, is_refused):
    args = SentimentTrainingArguments(per_device_train_batch_size=size, report_to="none", **options)
    monkeypatch.setattr(SentimentTrainingArguments, "world_size", world_size)
    if not is_refused:
        check_updates(rows, args)
        return
    with pytest.raises(InputError, match="launch at most 1 processes" if rows == 1 else "take at most 7"):
        check_updates(rows, args)
