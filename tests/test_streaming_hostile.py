"""Shards that other programs wrote, cut or spoilt: every row is used or named, or the run ends with one sentence."""

import csv
import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from launching import TINY, load_weights
from PIL import Image

import train
from data_utils.shards.read import check_columns, iterate_shard, read_texts
from data_utils.shards.shard_file import ShardError
from data_utils.shards.shard_set import find_shards
from data_utils.sources.quarantine import Entry
from evaluation.arguments import parse_arguments
from evaluation.tasks.session import run_evaluation
from modeling.errors import InputError
from training.engine.stream_trainer import StreamQuarantine


def picture():
    target = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(target, "JPEG")
    return target.getvalue()


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def tar_rows(numbers, *, label="positive", text="a good day"):
    rows = {}
    for number in numbers:
        rows |= {f"{number}.jpg": picture(), f"{number}.cls": label.encode(), f"{number}.txt": text.encode()}
    return rows


def write_table(folder, name="a.parquet", count=8, **columns):
    folder.mkdir(exist_ok=True)
    values = {"image": [picture()] * count, "text": ["a good day"] * count, "label": ["positive"] * count} | columns
    pq.write_table(pa.table({name: each for name, each in values.items() if each is not None}), folder / name)


def read_all(location):
    shards = find_shards(str(location), "train")
    return [read() for shard in shards.shards for _, read in iterate_shard(shard, shards.kind)]


def read_quarantine(run):
    with (run / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return sorted((row["guid"], row["reason"]) for row in csv.DictReader(file))


@pytest.fixture
def run(tmp_path):
    """Train on a folder of shards; returns the run folder."""

    def start(location, *flags, name="run"):
        words = ["--streaming", "--data_dir", str(location), "--cache_dir", str(tmp_path / "cache"), "--from_scratch"]
        words += ["--text_config", json.dumps(TINY), "--vision_config", json.dumps(TINY | {"patch_size": 16})]
        words += ["--image_size", "32", "--max_length", "16", "--per_device_train_batch_size", "4"]
        words += ["--output_dir", str(tmp_path / name), "--report_to", "none", "--disable_tqdm", "true"]
        train.main([*words, *flags])
        return tmp_path / name

    return start


@pytest.fixture
def fails(run, capfd):
    """The one sentence with which a training ends."""

    def start(location, *flags, code):
        with pytest.raises(SystemExit) as ending:
            run(location, *flags)
        assert ending.value.code == code
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return start


def test_faults_of_uncounted_rows_are_entered_once_however_many_passes_the_buffer_holds(run, fails, tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", tar_rows(range(10)) | tar_rows(range(10, 15), label="happy"))
    done = run(tmp_path / "tars", "--max_steps", "40", "--allow_data_loss")
    assert read_quarantine(done) == [(str(number), "unknown_label") for number in range(10, 15)]
    assert "has unknown_label" in fails(tmp_path / "tars", "--max_steps", "40", "--on_bad_pair", "error", code=1)


def test_faults_of_rows_that_the_first_epoch_left_out_are_entered_in_a_later_one(run, tmp_path):
    for shard in range(3):
        guids = [str(3 * shard + place) for place in range(3)]
        write_table(tmp_path / "rows", f"{shard}.parquet", count=3, label=["positive", "happy", "happy"], guid=guids)
    done = run(tmp_path / "rows", "--dataloader_drop_last", "--num_train_epochs", "6", "--allow_data_loss")
    assert read_quarantine(done) == [(str(number), "unknown_label") for number in (1, 2, 4, 5, 7, 8)]


def test_faults_of_validation_rows_hide_none_of_training_rows(run, tmp_path):
    for part in ("train", "validation"):
        guids = [f"{part}{number}" for number in range(4)]
        write_table(tmp_path / "rows", f"{part}-0.parquet", count=4, guid=guids, text=["@you", "a", "b", "c"])
    done = run(tmp_path / "rows", "--num_train_epochs", "2")
    assert read_quarantine(done) == [("train0", "empty_text"), ("validation0", "empty_text")]


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


def test_dry_run_whose_one_update_meets_unlabelled_rows_alone_is_no_failure(run, tmp_path):
    write_table(tmp_path / "rows", count=9, label=[None] * 8 + ["positive"])
    run(tmp_path / "rows", "--dry_run", "--shuffle_buffer_size", "1", "--allow_data_loss")


@pytest.mark.parametrize("steps", [3, 400])
def test_run_that_learns_from_no_row_is_refused(fails, tmp_path, steps):
    write_table(tmp_path / "rows", label=["happy"] * 8)
    assert "8 of 8 rows" in fails(tmp_path / "rows", "--max_steps", str(steps), code=2)
    message = fails(tmp_path / "rows", "--max_steps", str(steps), "--allow_data_loss", code=2)
    assert f"No row of the first {min(steps, 250)} updates" in message
    assert "got 'happy'; allowed: negative, neutral, positive" in message


def test_numbers_that_became_floats_are_class_numbers(run, tmp_path):
    write_table(tmp_path / "rows", label=[0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 2.0, float("nan")])
    done = run(tmp_path / "rows", "--max_steps", "2")
    assert [reason for _, reason in read_quarantine(done)] == ["no_label"]


def test_data_seed_decides_the_order_of_a_stream(run, tmp_path):
    write_table(tmp_path / "rows", count=24, label=["positive", "negative", "neutral"] * 8)
    flags = ["--num_train_epochs", "1", "--learning_rate", "1e-2"]
    weights = [load_weights(run(tmp_path / "rows", *flags, *more)) for more in ([], ["--data_seed", "99"])]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content, at: content[: at + 100], id="within a header"),
        pytest.param(lambda content, at: content[:at], id="between two files"),
        pytest.param(lambda content, at: content[:at] + b"\x01" * 512 + content[at + 512 :], id="header overwritten"),
    ],
)
def test_tar_that_ends_early_is_no_shorter_tar(tmp_path, spoil):
    path = tmp_path / "tars" / "0.tar"
    write_tar(path, tar_rows(range(6)))
    with tarfile.open(path) as archive:
        at = archive.getmembers()[9].offset
    assert len(read_all(path.parent)) == 6
    path.write_bytes(spoil(path.read_bytes(), at))
    with pytest.raises(ShardError, match=r"0\.tar can't be read"):
        read_all(path.parent)


def test_empty_first_tar_is_passed_over(run, tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", {})
    write_tar(tmp_path / "tars" / "1.tar", tar_rows(range(8)))
    run(tmp_path / "tars", "--max_steps", "2")


def test_spoilt_json_spoils_its_row_alone(tmp_path, run):
    rows = {f"{n}.{ending}": content for n in range(8) for ending, content in (("jpg", picture()), ("txt", b"words"))}
    details = [
        b'{"label": 1}',
        b'{"label": 2, "guid": "caf\xe9"}',
        b'{"label": 1',
        b"7",
        b"null",
        b'{"label": "neutral"}',
    ]
    rows |= {f"{n}.json": content for n, content in enumerate(details)}
    write_tar(tmp_path / "tars" / "0.tar", dict(sorted(rows.items())))
    found = read_all(tmp_path / "tars")
    assert [row.label for row in found] == [1, 2, '{"label": 1 (no JSON)', None, None, "neutral", None, None]
    assert found[1].guid == "café"
    done = run(tmp_path / "tars", "--max_steps", "30", "--allow_data_loss")
    assert read_quarantine(done) == [("2", "unknown_label"), *((str(n), "no_label") for n in (3, 4, 6, 7))]


def test_labels_may_begin_behind_rows_without_one(tmp_path):
    rows = tar_rows(range(40))
    rows = {
        name.replace(".cls", ".json"): b'{"label": null}' if ".cls" in name else each for name, each in rows.items()
    }
    write_tar(tmp_path / "tars" / "0.tar", rows | {"39.json": b'{"label": "positive"}'})
    check_columns(find_shards(str(tmp_path / "tars"), "train"), labelled=True)
    assert [row.label for row in read_all(tmp_path / "tars")][-2:] == [None, "positive"]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"text": list(range(8))}, "text as int64"),
        ({"image": [{"data": b"x", "path": "x"}] * 8}, "image as struct"),
        (
            {
                "image": pa.array(
                    [{"bytes": None, "path": "x.jpg"}] * 8, pa.struct({"bytes": "binary", "path": "string"})
                )
            },
            "paths but no bytes",
        ),
        ({"text": None}, "image, label"),
    ],
)
def test_columns_that_hold_no_texts_or_pictures_are_named(tmp_path, columns, named):
    write_table(tmp_path / "rows", **columns)
    with pytest.raises(InputError, match=rf"holds .*{named}.*; needed are the columns image"):
        check_columns(find_shards(str(tmp_path / "rows"), "train"), labelled=True)


def test_rows_without_a_picture_are_no_rows_with_paths(tmp_path):
    kind = pa.struct({"bytes": "binary", "path": "string"})
    write_table(tmp_path / "rows", image=pa.array([{"bytes": None, "path": None}] * 8, kind))
    shards = find_shards(str(tmp_path / "rows"), "train")
    check_columns(shards, labelled=True)
    assert read_all(tmp_path / "rows")[0].image is None


def test_texts_may_be_bytes(tmp_path):
    write_table(tmp_path / "rows", text=["ein schöner Tag".encode(), b"caf\xe9", None, *[b"x"] * 5])
    shards = find_shards(str(tmp_path / "rows"), "train")
    check_columns(shards, labelled=True)
    assert [row.text for row in read_all(tmp_path / "rows")][:3] == ["ein schöner Tag", "café", None]
    assert read_texts(shards, limit=3) == ["ein schöner Tag", "café", ""]


def test_shard_that_lacks_a_column_of_the_first_is_named(tmp_path):
    write_table(tmp_path / "rows")
    pq.write_table(pa.table({"image": [picture()], "label": ["positive"]}), tmp_path / "rows" / "b.parquet")
    with pytest.raises(ShardError, match=r"b\.parquet has no column text"):
        read_all(tmp_path / "rows")


def test_run_of_a_flag_that_is_refused_by_now_still_predicts(run, tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", tar_rows(range(4)))
    done = run(tmp_path / "tars", "--max_steps", "1")
    config = (done / "config.yaml").read_text()
    assert "val_ratio: 0.1" in config
    (done / "config.yaml").write_text(config.replace("val_ratio: 0.1", "val_ratio: 0.2"))
    words = [str(done), "--predict", str(tmp_path / "tars"), "--streaming", "--output", str(tmp_path / "o.csv")]
    run_evaluation(parse_arguments(words))
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 5


def test_shards_in_an_archive_train_and_are_predicted_whatever_else_a_tar_holds(run, tmp_path):
    write_tar(tmp_path / "train-0.tar", {"README.md": b"# Data", "._0.jpg": b"\0\5"} | tar_rows(range(8)))
    with zipfile.ZipFile(tmp_path / "F.zip", "w") as archive:
        archive.write(tmp_path / "train-0.tar", "rows/train-0.tar")
    done = run(f"zip://rows::{tmp_path}/F.zip", "--max_steps", "2", "--dataloader_num_workers", "1")
    shards = f"zip://rows/*.tar::{tmp_path}/F.zip"
    words = [str(done), "--predict", shards, "--streaming", "--output", str(tmp_path / "o.csv")]
    run_evaluation(parse_arguments([*words, "--dataloader_num_workers", "1"]))
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["guid", *map(str, range(8))]
    with pytest.raises(InputError, match=r"F\.zip"):
        run_evaluation(parse_arguments([*words[:-1], str(tmp_path / "F.zip")]))


def test_prediction_that_fails_leaves_nothing_behind(run, tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", tar_rows(range(8)))
    done = run(tmp_path / "tars", "--max_steps", "1")
    path = tmp_path / "tars" / "1.tar"
    write_tar(path, tar_rows(range(8)))
    path.write_bytes(path.read_bytes()[:-15_000])
    words = [str(done), "--predict", str(tmp_path / "tars"), "--streaming", "--output", str(tmp_path / "out" / "o.csv")]
    with pytest.raises(ShardError):
        run_evaluation(parse_arguments(words))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--val_ratio", "0.5"], "Got --val_ratio 0.5 with --streaming"),
        (["--train_file", "foo.txt"], "Got --train_file with --streaming"),
        (["--allow_leaky_split"], "Got --allow_leaky_split with --streaming"),
        (["--streaming", "false", "--shuffle_buffer_size", "5"], "belongs to --streaming"),
    ],
)
def test_flags_without_an_effect_are_refused(fails, tmp_path, flags, named):
    assert named in fails(tmp_path, *flags, code=2)
