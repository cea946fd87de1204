"""Large losses of shards: refused by counted labels, else by the first rows of some shards."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import TOKENIZER

from data_utils.shards.manifest import MANIFEST
from data_utils.shards.shard_set import find_shards
from data_utils.sources.row_losses import LossRule
from data_utils.stream.losses import check_first_rows
from data_utils.stream.rows import RowPreparer
from modeling.errors import InputError

LABELS = ("negative", "neutral", "positive")
MOODS = ("joy", "fear", "positive")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.fixture
def check(small_picture):
    """Judge the training shards of a folder."""

    def run(folder, *, labels=LABELS, needs=("text", "picture"), stops=True):
        prepare = RowPreparer(TOKENIZER, 16, small_picture, labels, "report", "mask")
        check_first_rows(find_shards(str(folder), "train"), prepare, LossRule(str(folder), needs, stops))

    return run


def test_sound_shards_pass(write_shards, numbered_rows, check):
    check(write_shards(numbered_rows(40)))


@pytest.mark.parametrize("shard_format", ["parquet", "webdataset"])
def test_labels_that_nobody_counted_are_looked_at(write_shards, check, shard_format):
    rows = [(str(number), MOODS[number % 3]) for number in range(60)]
    folder = write_shards(rows, "--labels", *MOODS, "--shard_format", shard_format, "--val_ratio", "0")
    (folder / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"carry a label that was not asked for.*`--labels positive fear joy`"):
        check(folder)
    check(folder, labels=MOODS)


def test_pointers_in_the_place_of_pictures_and_texts_are_named(tmp_path, check, caplog):
    columns = {
        "guid": [str(number) for number in range(20)],
        "text": [f"text {number}" if number < 12 else POINTER.decode() for number in range(20)],
        "image": [POINTER] * 20,
        "label": ["positive"] * 20,
    }
    pq.write_table(pa.table(columns), tmp_path / "train-0.parquet")
    with pytest.raises(InputError, match=r"8 of 20 rows have neither a text nor a picture .*git lfs pull"):
        check(tmp_path)
    check(tmp_path, stops=False)
    assert "8 of 20 rows have neither" in caplog.text
    columns["text"] = [f"text {number}" for number in range(20)]
    pq.write_table(pa.table(columns), tmp_path / "train-0.parquet")
    with pytest.raises(InputError, match=r"20 of 20 rows have no picture that can be used .*--fusion text_only"):
        check(tmp_path)
    check(tmp_path, needs=("text",))


def test_training_refuses_counted_labels_before_a_row_is_read(write_shards, run_train, capsys, monkeypatch):
    rows = [(str(number), MOODS[number % 3]) for number in range(60)]
    folder = write_shards(rows, "--labels", *MOODS)
    monkeypatch.setattr("training.data.stream_data.check_first_rows", None)
    with pytest.raises(SystemExit) as stop:
        run_train("--streaming", data_dir=folder)
    assert stop.value.code == 2
    assert "36 of 54 rows" in capsys.readouterr().err


def test_shards_of_a_list_with_large_losses_are_refused(write_shards, capsys):
    rows = [(str(number), MOODS[number % 3]) for number in range(60)]
    write_shards(rows, code=2)
    message = capsys.readouterr().err
    assert "40 of 60 rows" in message
    assert "`--labels positive fear joy`. To train all the same on what there is: --allow_data_loss." in message
    write_shards(rows, "--allow_data_loss", name="more")
    write_shards(rows, "--for_prediction", "--allow_data_loss", name="test", code=2)
    assert "--allow_data_loss True with --for_prediction" in capsys.readouterr().err
