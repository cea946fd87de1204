"""train.py and evaluate.py over shards, as a user starts them."""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import fsspec
import pytest
import torch
from conftest import LABELS, TELLING_WORDS, read_csv
from launching import TINY, launch, launcher, list_steps, load_weights, logged_losses
from shard_reading import read_all, tar_rows, write_tar

from data_utils.shards.manifest import MANIFEST
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import find_shards
from data_utils.system.refusals import RankError
from evaluation.arguments import parse_arguments
from evaluation.tasks import stream_prediction
from evaluation.tasks.session import run_evaluation
from modeling.errors import InputError

STREAM = ["--streaming", "--logging_steps", "1", "--shuffle_buffer_size", "10"]
RHYTHM = ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3"]
RHYTHM += ["--save_total_limit", "99", "--num_train_epochs", "2", "--gradient_accumulation_steps", "2"]
RHYTHM += ["--per_device_train_batch_size", "4"]
DROPOUT = TINY | {"attention_dropout": 0.1}


@pytest.fixture
def shards(write_shards):
    """Factory: 60 pairs (or others) in shards of 8, a quarter of them for validation; returns the folder."""

    def make(*flags, rows=None, **options):
        rows = rows or [(str(n), LABELS[n % 3], f"{TELLING_WORDS[LABELS[n % 3]]} {n}") for n in range(60)]
        share = [] if "--for_prediction" in flags else ["--val_ratio", "0.25"]
        return write_shards(rows, "--rows_per_shard", "8", *share, *flags, **options)

    return make


@pytest.fixture
def run(run_train):
    """Train on a stream; returns the run folder."""
    return lambda folder, *flags, name="run": run_train(
        *STREAM, *flags, data_dir=folder, name=name, text_config=DROPOUT
    )[0]


def predict(run, shards, output, *flags):
    words = [run, "--predict", shards, "--streaming", "--output", output, *flags]
    run_evaluation(parse_arguments(list(map(str, words))))


def cut_back(whole, cut, *, keep):
    """A copy of a run as if it had been killed after the update `keep`."""
    shutil.copytree(whole, cut)
    for step in list_steps(cut):
        if step > keep:
            shutil.rmtree(cut / "checkpoints" / f"checkpoint-{step}")


def assert_same(run, reference):
    assert logged_losses(run) == logged_losses(reference)
    weights, expected = load_weights(run), load_weights(reference)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    for name in ("predictions_val.csv", "quarantine.csv"):
        assert (run / name).read_text() == (reference / name).read_text()


def faulty_rows():
    rows = [(str(n), LABELS[n % 3], f"{LABELS[n % 3]} {n}") for n in range(60)]
    return [*rows, *((f"x{n}", "positive", "@you") for n in range(8))]


def test_resumed_run_is_the_uninterrupted_one(shards, run, refusal, tmp_path):
    """Over tars; 7 updates an epoch, and 3 is within the first one."""
    folder = shards("--shard_format", "webdataset", rows=faulty_rows())
    whole, cut = run(folder, *RHYTHM, name="whole"), tmp_path / "cut"
    assert max(list_steps(whole)) == 14
    cut_back(whole, cut, keep=3)
    resume = [*RHYTHM, "--resume_from_checkpoint", "latest"]
    run(folder, *resume, name="cut")
    assert_same(cut, whole)
    sentence = refusal(run, folder, *resume, "--dataloader_num_workers", "2", name="cut")
    assert "The rows or their order differ" in sentence


def test_two_ranks_with_two_workers_go_on_bit_for_bit(shards, tmp_path):
    folder, whole, cut = shards(rows=faulty_rows()), tmp_path / "whole", tmp_path / "cut"
    words = [*STREAM, *RHYTHM, "--data_dir", str(folder), "--cache_dir", str(tmp_path / "cache"), "--from_scratch"]
    words += ["--text_config", json.dumps(DROPOUT), "--vision_config", json.dumps(TINY | {"patch_size": 16})]
    words += ["--image_size", "32", "--max_length", "16", "--learning_rate", "1e-3", "--report_to", "none"]
    ranks = launcher("multi_gpu", 2)
    launch(ranks, "train.py", *words, "--dataloader_num_workers", "2", "--output_dir", str(whole))
    last = max(list_steps(whole))
    assert last == 2 * -(-find_shards(str(folder), "train").num_rows // 16)
    cut_back(whole, cut, keep=last - 3)
    words += ["--output_dir", str(cut), "--resume_from_checkpoint", "latest", "--dataloader_num_workers", "2"]
    assert launch(ranks, "train.py", *words).count("Resuming from") == 1
    assert_same(cut, whole)
    entries = read_csv(cut / "quarantine.csv")
    assert sorted(entry["guid"] for entry in entries) == sorted(f"x{n}" for n in range(8)), "each fault once"
    assert {entry["reason"] for entry in entries} == {"empty_text"}


def test_streamed_run_is_evaluated_and_predicts(shards, run, tmp_path):
    folder = shards()
    done = run(folder, "--class_weights", "sqrt", "--num_train_epochs", "2")
    predictions = read_csv(done / "predictions_val.csv")
    assert [row["guid"] for row in predictions] == [row.guid for row in read_all(folder, "validation")]
    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["training"]["num_train_rows"] == 45
    run_evaluation(parse_arguments([str(done)]))
    accuracy = json.loads((done / "evaluation_val.json").read_text())["accuracy"]
    assert accuracy == pytest.approx(metrics["val"]["accuracy"])
    # The list and its shards get the same answers, broken rows among them.
    rows = [(f"p{n}", "null", f"words {n}") for n in range(20)] + [("../x", "null"), ("b", "null", None, b"x")]
    test = shards("--for_prediction", rows=rows, name="test", list_name="test.txt")
    listed, streamed = tmp_path / "listed.txt", tmp_path / "streamed.txt"
    words = [str(done), "--predict", str(tmp_path / "pairs" / "test.txt"), "--output", str(listed)]
    run_evaluation(parse_arguments(words))
    more = ["--dataloader_num_workers", "2", "--per_device_eval_batch_size", "3"]
    (tmp_path / "streamed.metrics.json").write_text('{"majority_baseline": {}}')  # an earlier list's
    predict(done, test, streamed, *more)
    assert streamed.read_text() == listed.read_text()
    words = [str(done), "--predict", str(test), "--streaming", "--output", str(tmp_path / "ranks.txt"), *more]
    launch(launcher("multi_gpu", 2), "evaluate.py", *words)
    for ending in ("txt", "probabilities.csv", "quarantine.csv"):
        assert (tmp_path / f"ranks.{ending}").read_text() == (tmp_path / f"streamed.{ending}").read_text()
    assert len(read_csv(tmp_path / "streamed.probabilities.csv")) == 22
    assert {entry["guid"] for entry in read_csv(tmp_path / "streamed.quarantine.csv")} == {"../x", "b"}
    assert list(tmp_path.glob(".streamed*")) == []
    assert not (tmp_path / "streamed.metrics.json").exists()
    assert_refuses_outputs(done, test, tmp_path)
    assert_one_rank_speaks_for_itself(done, test, tmp_path)


def assert_refuses_outputs(run, folder, tmp_path):
    """Before anything is answered, and with every input as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    first = sorted(folder.glob("test-*"))[0]
    (tmp_path / "taken.probabilities.csv").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_prediction, "_answer", None)
        for output, message in (
            (first, f"would overwrite {first}"),
            (folder / MANIFEST, "would overwrite"),
            (tmp_path / "taken.txt", "taken.probabilities.csv, which is not a plain file"),
            (first / "out.txt", "Cannot write into"),
        ):
            with pytest.raises(InputError, match=message):
                predict(run, folder, output)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def assert_one_rank_speaks_for_itself(run, folder, tmp_path):
    lost, classify = tmp_path / "lost.txt", stream_prediction.classify

    def answer_nan(*args):
        return {name: value * float("nan") for name, value in classify(*args).items()}

    for owner, name, fault, message in (
        (stream_prediction, "classify", answer_nan, "not finite"),
        (stream_prediction._PartFiles, "write", lambda *_: Path(tmp_path, "none", "x").touch(), "Cannot write beside"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, fault)
            with pytest.raises(RankError, match=message):
                predict(run, folder, lost)
    assert list(tmp_path.glob("*lost*")) == []


def test_prediction_of_a_broken_shard_leaves_nothing_behind(tiny_run, fresh_state, tmp_path):
    path = tmp_path / "tars" / "1.tar"
    write_tar(tmp_path / "tars" / "0.tar", tar_rows("01234567"))
    write_tar(path, tar_rows("01234567"))
    path.write_bytes(path.read_bytes()[:-15_000])
    with pytest.raises(ShardError):
        predict(tiny_run.path, path.parent, tmp_path / "out" / "o.csv")
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_in_an_archive_train_and_are_predicted_whatever_else_a_tar_holds(run, tmp_path):
    write_tar(tmp_path / "train-0.tar", {"README.md": b"# Data", "._0.jpg": b"\0\5"} | tar_rows("01234567"))
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.write(tmp_path / "train-0.tar", "rows/train-0.tar")
    done = run(f"zip://rows::{tmp_path}/F.zip", "--max_steps", "2", "--dataloader_num_workers", "1")
    config = (done / "config.yaml").read_text()
    assert "val_ratio: 0.1" in config
    (done / "config.yaml").write_text(config.replace("val_ratio: 0.1", "val_ratio: 0.2"))  # a flag refused by now
    shards, output = f"zip://rows/*.tar::{tmp_path}/F.zip", tmp_path / "o.csv"
    predict(done, shards, output, "--dataloader_num_workers", "1")
    assert [row["guid"] for row in read_csv(output)] == list("01234567")
    with pytest.raises(InputError, match=r"F\.zip"):
        predict(done, shards, tmp_path / "F.zip")


def test_uncounted_tars_from_a_url_train_for_max_steps(shards, run, refusal, caplog):
    folder = shards("--shard_format", "webdataset", "--val_ratio", "0")
    (folder / MANIFEST).unlink()
    fsspec.filesystem("memory").put(str(folder) + "/", "/bucket/", recursive=True)
    for flags, message in (
        ([], "give --max_steps"),
        (["--max_steps", "9", "--class_weights", "sqrt"], "no shards.json"),
        (["--max_steps", "9", "--logit_adjustment", "0.2"], "leave --logit_adjustment out"),
    ):
        assert message in refusal(run, "memory://bucket", *flags)
    done = run("memory://bucket/*.tar", "--max_steps", "20")
    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 20
    assert metrics["val"] is None
    assert "There is no validation part" in caplog.text
    done = run("memory://bucket/*.tar", "--max_steps", "25", "--resume_from_checkpoint", "latest")
    assert json.loads((done / "metrics.json").read_text())["training"]["steps"] == max(logged_losses(done)) == 25
    assert "Resuming from" in caplog.text


def test_dry_run_over_a_stream(shards, run, capsys, caplog, tmp_path, monkeypatch):
    folder = shards()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    run(folder, "--dry_run", "--freeze", "both")
    assert caplog.text.count("features of a stream aren't kept") == 1
    rows = [(str(n), ["negative", "positive"][n % 2]) for n in range(20)]
    run(shards("--val_ratio", "0", rows=rows, name="two"), "--dry_run")
    assert caplog.text.count("No row for training is labelled neutral: ") == 1
    capsys.readouterr()
    run(folder, "--dry_run", "--freeze", "text")
    assert "features" not in caplog.text
    sheet = capsys.readouterr().out
    for words in ("45 for training, 15 for validation", "6, 6 per epoch", "streamed from 6 shards"):
        assert words in sheet
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_mistakes_are_one_sentence(shards, run, refusal, tmp_path):
    rows = [(str(n), "positive", "words" if n else "@you") for n in range(20)]
    folder = shards("--val_ratio", "0", rows=rows)
    for flags, message in (
        (["--max_train_samples", "5"], "take --max_steps"),
        (["--split_file", "x.json"], "data_utils.shard, which splits"),
        (["--val_ratio", "0.5"], "Got --val_ratio 0.5 with --streaming"),
        (["--train_file", "foo.txt"], "Got --train_file with --streaming"),
        (["--allow_leaky_split"], "Got --allow_leaky_split with --streaming"),
        (["--streaming", "false"], "Got --shuffle_buffer_size, which belongs to --streaming"),
        (["--labels", "good", "bad"], "Labels found, with their rows: 'positive' (20); allowed: good, bad"),
        (["--freeze", "both", "--cache_features"], "aren't kept"),
        (["--train_sampling_strategy", "group_by_length"], "a shuffle buffer decides"),
    ):
        assert message in refusal(run, folder, *flags)
    assert "There are no train-*.parquet" in refusal(run, tmp_path / "pairs")
    assert "--on_bad_pair is error" in refusal(run, folder, "--on_bad_pair", "error", code=1)
    first = sorted(folder.glob("train-*"))[0]
    first.write_bytes(first.read_bytes()[:-50])
    assert f"{first.name} can't be read" in refusal(run, folder)
