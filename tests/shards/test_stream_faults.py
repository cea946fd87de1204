"""Faults of streamed rows: each is entered once in quarantine.csv, and large losses end the run with one sentence."""

import csv

import pytest
from encoded_sentences import SENTENCES
from launching import load_weights
from shard_reading import POINTER, tar_row, tar_rows, write_table, write_tar
from tiny import TOKENIZER

from data_utils.shards.manifest import MANIFEST
from data_utils.shards.shard_set import find_shards
from data_utils.sources.quarantine import Entry
from data_utils.sources.row_losses import LossRule
from data_utils.stream.rows import RowPreparer, check_first_rows
from evaluation.predict.loaded_run import load_run
from modeling.errors import InputError
from training.engine import stream_trainer
from training.engine.stream_trainer import StreamQuarantine

LABELS = ("negative", "neutral", "positive")
MOODS = ("joy", "fear", "positive")


def read_quarantine(path):
    with path.open(encoding="utf-8", newline="") as file:
        return sorted((row["guid"], row["reason"]) for row in csv.DictReader(file))


@pytest.fixture
def run(run_train):
    """Train on a stream, in batches of 4 rows; returns the run folder."""
    return lambda folder, *flags, name="run": run_train(
        "--streaming", "--per_device_train_batch_size", "4", *flags, data_dir=folder, name=name
    )[0]


@pytest.fixture
def fails(run, capfd):
    """The one sentence with which a training ends."""

    def start(location, *flags, code):
        with pytest.raises(SystemExit) as ending:
            run(location, *flags)
        assert ending.value.code == code
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return start


def test_faults_of_uncounted_rows_are_entered_once_however_many_passes_the_buffer_holds(run, fails, tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", tar_rows("0123456789") | tar_rows("abcde", label=b"happy"))
    done = run(tmp_path / "tars", "--max_steps", "12", "--shuffle_buffer_size", "40", "--allow_data_loss")
    assert read_quarantine(done / "quarantine.csv") == [(guid, "unknown_label") for guid in "abcde"]
    assert "has unknown_label" in fails(tmp_path / "tars", "--max_steps", "12", "--on_bad_pair", "error", code=1)


def test_faults_of_rows_that_the_first_epoch_left_out_are_entered_in_a_later_one(run, tmp_path):
    for shard in range(3):
        guids = [f"{shard}{place}" for place in range(3)]
        path = tmp_path / "rows" / f"{shard}.parquet"
        write_table(path, count=3, label=["positive", "happy", "happy"], guid=guids)
    done = run(tmp_path / "rows", "--dataloader_drop_last", "--num_train_epochs", "6", "--allow_data_loss")
    found = read_quarantine(done / "quarantine.csv")
    assert found == [(guid, "unknown_label") for guid in ("01", "02", "11", "12", "21", "22")]


def test_faults_of_validation_rows_hide_none_of_training_rows(run, tmp_path):
    for part in ("train", "validation"):
        guids = [f"{part}{number}" for number in range(4)]
        write_table(tmp_path / "rows" / f"{part}-0.parquet", count=4, guid=guids, text=["@you", "a", "b", "c"])
    done = run(tmp_path / "rows", "--num_train_epochs", "2")
    assert read_quarantine(done / "quarantine.csv") == [("train0", "empty_text"), ("validation0", "empty_text")]


def test_line_of_a_fault_that_was_cut_off_is_written_again(tmp_path):
    path = tmp_path / "quarantine.csv"
    entries = [Entry(number, f"g{number}", "missing_text", "masked", "a, b") for number in range(3)]
    StreamQuarantine(path, 0).add(entries[:2])
    whole = path.read_text()
    path.write_text(whole[:-9])
    log = StreamQuarantine(path, 0)
    log.add(entries[:2])
    assert path.read_text() == whole
    log.add([*entries, *entries])
    assert path.read_text().count("missing_text") == 3


def test_faults_of_machines_without_shared_files_come_together(monkeypatch, tmp_path, caplog):
    paths = [tmp_path / f"machine{rank}" / "quarantine.csv" for rank in range(2)]
    sent = []
    monkeypatch.setattr(stream_trainer, "gather_object", lambda rows: sent.extend(rows) or sent)
    with caplog.at_level("INFO", logger="training"):
        for rank in (1, 0, 1, 0):  # a resumed run meets them again
            log = StreamQuarantine(paths[rank], rank)
            log.add([Entry(rank + 1, f"x{rank}", "empty_text", "masked", "a, b")])
            log.finish()
    assert [guid for guid, _ in read_quarantine(paths[0])] == ["x0", "x1"]
    assert "empty_text: 2 masked" in caplog.text
    assert list(paths[1].parent.iterdir()) == []


def test_dry_run_whose_one_update_meets_unlabelled_rows_alone_is_no_failure(run, tmp_path, caplog):
    write_table(tmp_path / "rows" / "a.parquet", count=9, label=[None] * 8 + ["positive"])
    run(tmp_path / "rows", "--dry_run", "--shuffle_buffer_size", "1", "--allow_data_loss")
    assert "quarantine.csv" not in caplog.text  # there is none afterwards


def test_run_that_learns_from_no_row_is_refused(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_trainer, "USELESS_ROWS", 20)
    write_table(tmp_path / "rows" / "a.parquet", label=["happy"] * 8)
    assert "8 of 8 rows" in fails(tmp_path / "rows", code=2)
    for steps in (3, 400):
        message = fails(tmp_path / "rows", "--max_steps", str(steps), "--allow_data_loss", code=2)
        assert f"No row of the first {min(steps, 5)} updates" in message
        assert "got 'happy'; allowed: negative, neutral, positive" in message


def test_data_seed_decides_the_order_of_a_stream(run, tmp_path):
    write_table(tmp_path / "rows" / "a.parquet", count=24, label=["positive", "negative", "neutral"] * 8)
    flags = ["--num_train_epochs", "1", "--learning_rate", "1e-2"]
    weights = [load_weights(run(tmp_path / "rows", *flags, *more)) for more in ([], ["--data_seed", "99"])]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


@pytest.fixture
def check(small_picture):
    """Judge the training shards of a folder."""

    def judge(folder, *, labels=LABELS, needs=("text", "image"), stops=True):
        prepare = RowPreparer(TOKENIZER, 16, small_picture, labels, "report", "mask")
        check_first_rows(find_shards(str(folder), "train"), prepare, LossRule(str(folder), needs, stops))

    return judge


@pytest.mark.parametrize("shard_format", ["parquet", "webdataset"])
def test_labels_that_nobody_counted_are_looked_at(write_shards, check, shard_format):
    rows = [(str(number), MOODS[number % 3]) for number in range(60)]
    folder = write_shards(rows, "--labels", *MOODS, "--shard_format", shard_format, "--val_ratio", "0")
    (folder / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"carry a label that was not asked for.*`--labels positive fear joy`"):
        check(folder)
    check(folder, labels=MOODS)


def test_pointers_in_the_place_of_pictures_and_texts_are_named(tmp_path, check, caplog):
    path, texts = tmp_path / "train-0.parquet", [f"text {number}" for number in range(20)]
    write_table(path, count=20, text=[*texts[:12], *[POINTER.decode()] * 8], image=[POINTER] * 20)
    with pytest.raises(InputError, match=r"8 of 20 rows have neither a text nor a picture .*git lfs pull"):
        check(tmp_path)
    check(tmp_path, stops=False)
    assert "8 of 20 rows have neither" in caplog.text
    write_table(path, count=20, text=texts, image=[POINTER] * 20)
    with pytest.raises(InputError, match=r"20 of 20 rows have no picture that can be used .*--fusion text_only"):
        check(tmp_path)
    check(tmp_path, needs=("text",))


def test_counted_labels_are_refused_before_a_row_is_read(write_shards, fails, monkeypatch):
    folder = write_shards([(str(number), MOODS[number % 3]) for number in range(60)], "--labels", *MOODS)
    monkeypatch.setattr("training.data.stream_data.check_first_rows", None)
    assert "36 of 54 rows" in fails(folder, "--labels", "negative", "neutral", "positive", code=2)


def test_run_on_a_stream_keeps_the_encoding(run_train, tmp_path):
    texts = [SENTENCES["russian"][number % 6].encode("koi8_r") for number in range(12)]
    rows = [tar_row(f"{number:02d}", text=text) for number, text in enumerate(texts)]
    write_tar(tmp_path / "tars" / "0.tar", {name: content for row in rows for name, content in row.items()})
    for given, kept in (([], "koi8_r"), (["--text_encoding", "cp1251"], "cp1251")):
        run, screen = run_train("--streaming", "--max_steps", "1", *given, data_dir=tmp_path / "tars", name=kept)
        assert ("are read as koi8_r; --text_encoding names another" in screen) == (not given)
        assert load_run(run).data.text_encoding == kept
