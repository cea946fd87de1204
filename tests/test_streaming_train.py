"""train.py and evaluate.py over shards, as a user starts them."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import fsspec
import pytest
import torch
from launching import TINY, launch, launcher, list_steps, load_weights, logged_losses

import train
from data_utils import shard
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.shard_set import find_shards
from data_utils.sources.quarantine import Entry
from data_utils.system.refusals import RankError
from evaluation.arguments import parse_arguments
from evaluation.tasks import stream_prediction
from evaluation.tasks.session import run_evaluation
from modeling.errors import InputError
from training.engine import stream_trainer
from training.engine.stream_trainer import StreamQuarantine
from training.launch.console import clear_errors

TEXTS = {"negative": "a bad sad day", "neutral": "a plain grey day", "positive": "a good glad day"}
SHAPE = ["--text_config", json.dumps(TINY | {"attention_dropout": 0.1})]
SHAPE += ["--vision_config", json.dumps(TINY | {"patch_size": 16})]


@pytest.fixture
def shards(make_pairs, tmp_path):
    """Factory: 60 pairs (or others) in shards of 8, a quarter of them for validation; returns the folder."""

    def make(*flags, rows=None, name="shards", list_name="train.txt"):
        labels = list(TEXTS)
        rows = rows or [(str(n), labels[n % 3], f"{TEXTS[labels[n % 3]]} {n}") for n in range(60)]
        folder = make_pairs(rows, list_name=list_name)
        words = ["--data_dir", str(folder), "--output_dir", str(tmp_path / name), "--train_file", list_name]
        words += ["--rows_per_shard", "8", "--cache_dir", str(tmp_path / "cache")]
        words += [] if "--for_prediction" in flags else ["--val_ratio", "0.25"]
        assert shard.main([*words, "--preprocessing_num_workers", "1", *flags]) == 0
        return tmp_path / name

    return make


@pytest.fixture
def flags(tmp_path):
    """Flags of train.py for a folder of shards, with a tiny model."""

    def make(folder, *more, name="run"):
        words = ["--streaming", "--data_dir", str(folder), "--cache_dir", str(tmp_path / "cache")]
        words += ["--output_dir", str(tmp_path / name), "--from_scratch", *SHAPE, "--image_size", "32"]
        words += ["--max_length", "16", "--learning_rate", "1e-3", "--report_to", "none", "--logging_steps", "1"]
        return [*words, "--num_train_epochs", "1", "--shuffle_buffer_size", "10", "--disable_tqdm", "true", *more]

    return make


@pytest.fixture
def run(flags, tmp_path):
    """Run train.py's main; returns the run folder."""

    def start(folder, *more, name="run"):
        train.main(flags(folder, *more, name=name))
        return tmp_path / name

    return start


@pytest.fixture
def fails(flags, capfd):
    """The one sentence with which train.py ends."""

    def start(folder, *more, code=2):
        with pytest.raises(SystemExit) as ending:
            train.main(flags(folder, *more))
        assert ending.value.code == code
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return start


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RHYTHM = ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3"]
RHYTHM += ["--save_total_limit", "99", "--num_train_epochs", "2", "--gradient_accumulation_steps", "2"]
RHYTHM += ["--per_device_train_batch_size", "4"]


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
    rows = [(str(n), list(TEXTS)[n % 3], f"{list(TEXTS)[n % 3]} {n}") for n in range(60)]
    return [*rows, *((f"x{n}", "positive", "@you") for n in range(8))]


@pytest.mark.parametrize(("kind", "keep"), [("parquet", 3), ("webdataset", 6)])
def test_resumed_run_is_the_uninterrupted_one(shards, run, tmp_path, kind, keep):
    """7 updates an epoch: 3 is within the first one, 7 its end."""
    folder = shards("--shard_format", kind, rows=faulty_rows())
    whole, cut = run(folder, *RHYTHM, name="whole"), tmp_path / "cut"
    assert max(list_steps(whole)) == 14
    cut_back(whole, cut, keep=keep)
    run(folder, *RHYTHM, "--resume_from_checkpoint", "latest", name="cut")
    assert_same(cut, whole)


def test_two_ranks_with_two_workers_go_on_bit_for_bit(shards, flags, tmp_path):
    folder, whole, cut = shards(rows=faulty_rows()), tmp_path / "whole", tmp_path / "cut"
    two = [*RHYTHM, "--dataloader_num_workers", "2"]
    launch(launcher("multi_gpu", 2), "train.py", *flags(folder, *two, name="whole"))
    last = max(list_steps(whole))
    assert last == 2 * -(-find_shards(str(folder), "train").num_rows // 16)
    cut_back(whole, cut, keep=last - 3)
    more = [*two, "--resume_from_checkpoint", "latest"]
    screen = launch(launcher("multi_gpu", 2), "train.py", *flags(folder, *more, name="cut"))
    assert screen.count("Resuming from") == 1
    assert_same(cut, whole)
    entries = read_csv(cut / "quarantine.csv")
    assert sorted(entry["guid"] for entry in entries) == sorted(f"x{n}" for n in range(8)), "each fault once"
    assert {entry["reason"] for entry in entries} == {"empty_text"}
    refused = [*RHYTHM, "--dataloader_num_workers", "1", "--resume_from_checkpoint", "latest"]
    screen = launch(launcher("multi_gpu", 2), "train.py", *flags(folder, *refused, name="cut"), code=1)
    assert "The rows or their order differ" in screen


def test_streamed_run_is_evaluated_and_predicts(shards, run, capsys, tmp_path):
    folder = shards()
    done = run(folder, "--class_weights", "sqrt", "--num_train_epochs", "2")
    predictions = read_csv(done / "predictions_val.csv")
    assert [row["guid"] for row in predictions] == [row.guid for row in all_rows(folder, "validation")]
    assert json.loads((done / "metrics.json").read_text())["training"]["num_train_rows"] == 45
    run_evaluation(parse_arguments([str(done)]))
    assert json.loads((done / "evaluation_val.json").read_text())["accuracy"] == pytest.approx(
        json.loads((done / "metrics.json").read_text())["val"]["accuracy"]
    )
    # The list and its shards get the same answers, broken rows among them.
    rows = [(f"p{n}", "null", f"words {n}") for n in range(20)] + [("../x", "null"), ("b", "null", None, b"x")]
    test = shards("--for_prediction", rows=rows, name="test", list_name="test.txt")
    listed, streamed = tmp_path / "listed.txt", tmp_path / "streamed.txt"
    run_evaluation(
        parse_arguments([str(done), "--predict", str(tmp_path / "pairs" / "test.txt"), "--output", str(listed)])
    )
    more = ["--streaming", "--dataloader_num_workers", "2", "--per_device_eval_batch_size", "3"]
    (tmp_path / "streamed.metrics.json").write_text("{}")  # an earlier list's
    run_evaluation(parse_arguments([str(done), "--predict", str(test), "--output", str(streamed), *more]))
    assert streamed.read_text() == listed.read_text()
    words = [str(done), "--predict", str(test), "--output", str(tmp_path / "ranks.txt"), *more]
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
    first, plain = sorted(folder.glob("test-*"))[0], tmp_path / "plain"
    (tmp_path / "taken.probabilities.csv").mkdir()
    plain.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_prediction, "_answer", None)
        for output, message in (
            (first, f"would overwrite {first}"),
            (folder / MANIFEST, "would overwrite"),
            (tmp_path, "not a plain file"),
            (tmp_path / "taken.txt", "taken.probabilities.csv, which is not a plain file"),
            (plain / "out.txt", "Cannot write into"),
        ):
            words = [str(run), "--predict", str(folder), "--streaming", "--output", str(output)]
            with pytest.raises(InputError, match=message):
                run_evaluation(parse_arguments(words))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def assert_one_rank_speaks_for_itself(run, folder, tmp_path):
    words = [str(run), "--predict", str(folder), "--streaming", "--output", str(tmp_path / "lost.txt")]
    classify = stream_prediction.classify
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            stream_prediction,
            "classify",
            lambda *args: {name: value * float("nan") for name, value in classify(*args).items()},
        )
        with pytest.raises(RankError, match="not finite"):
            run_evaluation(parse_arguments(words))
        patch.setattr(stream_prediction._PartFiles, "write", lambda *args: Path(tmp_path, "none", "x").write_text(""))
        patch.setattr(stream_prediction, "classify", classify)
        with pytest.raises(RankError, match="Cannot write beside"):
            run_evaluation(parse_arguments(words))
    assert not (tmp_path / "lost.txt").exists()


def test_error_of_another_rank_is_printed(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ending, clear_errors():
        raise RankError("The disk is full.")
    assert ending.value.code == 1
    assert "error (rank 1): The disk is full." in capsys.readouterr().err


def test_faults_of_machines_without_shared_files_come_together(monkeypatch, tmp_path, caplog):
    paths = [tmp_path / f"machine{rank}" / "quarantine.csv" for rank in range(2)]
    sent = []
    monkeypatch.setattr(stream_trainer, "gather_object", lambda rows: sent.extend(rows) or sent)

    def meet():
        for rank in (1, 0):
            log = StreamQuarantine(paths[rank], rank)
            log.add([Entry(rank + 1, f"x{rank}", "empty_text", "masked", "a, b")])
            log.finish()

    with caplog.at_level("INFO", logger="training"):
        meet()
        meet()  # a resumed run meets them again
    assert [row["guid"] for row in read_csv(paths[0])] == ["x0", "x1"]
    assert "empty_text: 2 masked" in caplog.text
    assert list(paths[1].parent.iterdir()) == []


def all_rows(folder, part):
    from data_utils.shards.read import iterate_shard

    shards = find_shards(str(folder), part)
    return [read() for each in shards.shards for _, read in iterate_shard(each, shards.kind)]


def test_uncounted_tars_from_a_url_train_for_max_steps(shards, run, fails, caplog):
    folder = shards("--shard_format", "webdataset", "--val_ratio", "0")
    (folder / MANIFEST).unlink()
    files = fsspec.filesystem("memory")
    files.put(str(folder) + "/", "/bucket/", recursive=True)
    assert "give --max_steps" in fails("memory://bucket")
    assert "no shards.json" in fails("memory://bucket", "--max_steps", "9", "--class_weights", "sqrt")
    assert "leave --logit_adjustment out" in fails("memory://bucket", "--max_steps", "9", "--logit_adjustment", "0.2")
    done = run("memory://bucket/*.tar", "--max_steps", "20")
    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 20
    assert metrics["val"] is None
    assert "There is no validation part" in caplog.text
    done = run("memory://bucket/*.tar", "--max_steps", "25", "--resume_from_checkpoint", "latest")
    assert json.loads((done / "metrics.json").read_text())["training"]["steps"] == 25
    assert max(logged_losses(done)) == 25
    assert "Resuming from" in caplog.text


def test_dry_run_over_a_stream(shards, flags, capsys, caplog, tmp_path, monkeypatch):
    folder = shards()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    train.main(flags(folder, "--dry_run", "--freeze", "both"))
    assert caplog.text.count("features of a stream aren't kept") == 1
    caplog.clear()
    train.main(flags(folder, "--dry_run", "--freeze", "text"))
    assert "features" not in caplog.text
    capsys.readouterr()
    train.main(flags(folder, "--dry_run"))
    sheet = capsys.readouterr().out
    assert "45 for training, 15 for validation" in sheet
    assert "6, 6 per epoch" in sheet
    assert "streamed from 6 shards" in sheet
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_class_that_no_shard_has_is_named(shards, flags, caplog):
    folder = shards(
        "--val_ratio", "0", rows=[(str(n), ["negative", "positive"][n % 2], f"words {n}") for n in range(20)]
    )
    train.main(flags(folder, "--dry_run"))
    assert caplog.text.count("No row for training is labelled neutral: ") == 1


def test_mistakes_are_one_sentence(shards, fails, tmp_path):
    rows = [(str(n), "positive", "words" if n else "@you") for n in range(20)]
    folder = shards("--val_ratio", "0", rows=rows)
    assert "There are no train-*.parquet" in fails(tmp_path / "pairs")
    assert "take --max_steps" in fails(folder, "--max_train_samples", "5")
    assert "data_utils.shard, which splits" in fails(folder, "--split_file", "x.json")
    assert "Labels found, with their rows: 'positive' (20); allowed: good, bad" in fails(
        folder, "--labels", "good", "bad"
    )
    assert "aren't kept" in fails(folder, "--freeze", "both", "--cache_features")
    assert "a shuffle buffer decides" in fails(folder, "--train_sampling_strategy", "group_by_length")
    assert "--on_bad_pair is error" in fails(folder, "--on_bad_pair", "error", code=1)
    first = sorted(folder.glob("train-*"))[0]
    first.write_bytes(first.read_bytes()[:-50])
    assert f"{first.name} can't be read" in fails(folder)
