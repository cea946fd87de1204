"""The same pairs in every format: the same split, weights, folds, shards and answers, bit for bit."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import pytest
from conftest import tiny_flags
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from evaluating import LABELS, write_pairs

import train
from data_utils import shard

FORMATS = ("csv", "csv.gz", "tsv", "json", "jsonl", "parquet", "arrow", "saved", "folder")
QUICK = ("csv", "parquet", "saved")  # for what takes longer
QUICK_FIRST = [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in FORMATS]
OUTPUTS = ("answers.csv", "answers.jsonl", "answers.parquet")
# `make test` has each format and each output, `make test-all` all pairs of them.
ANSWERED = [
    pytest.param(kind, output, marks=[] if place % 3 == number else pytest.mark.slow)
    for place, kind in enumerate(FORMATS)
    for number, output in enumerate(OUTPUTS)
]
FEATURES = Features(
    {"id": Value("string"), "text": Value("string"), "image": Image(), "label": ClassLabel(names=LABELS)}
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The pairs as list and files."""
    return write_pairs(tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="module")
def rows(pairs):
    """The same as dicts; a picture is its path."""
    with (pairs / "train.txt").open() as file:
        listed = list(csv.reader(file))[1:]
    folder = pairs / "data"
    return [
        {"id": guid, "text": (folder / f"{guid}.txt").read_text(), "image": f"data/{guid}.jpg", "label": label}
        for guid, label in listed
    ]


@pytest.fixture(scope="module")
def tables(pairs, rows):
    """Factory: what `--data` names, by the format."""
    inside = [row | {"image": {"bytes": (pairs / row["image"]).read_bytes(), "path": None}} for row in rows]

    def make(kind):
        path = pairs / ("saved" if kind == "saved" else "folder" if kind == "folder" else f"rows.{kind}")
        if path.exists():
            return path
        dataset = Dataset.from_list(inside, features=FEATURES)
        if kind in ("csv", "tsv"):
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        elif kind == "csv.gz":
            path.write_bytes(gzip.compress(make("csv").read_bytes()))
        elif kind == "json":
            path.write_text(json.dumps(rows))
        elif kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        elif kind == "parquet":
            dataset.to_parquet(path)
        elif kind == "arrow":
            shutil.copy(make("saved") / "train" / "data-00000-of-00001.arrow", path)
        elif kind == "saved":
            DatasetDict({"train": dataset}).save_to_disk(path)
        else:
            shutil.copytree(pairs / "data", path)
            with (path / "metadata.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "text", "file_name", "label"])
                writer.writerows([row["id"], row["text"], row["image"][5:], row["label"]] for row in rows)
        return path

    return make


@pytest.fixture(scope="module")
def run(pairs, tables, tmp_path_factory):
    """Factory of a run folder of a short training on one format; made once each."""
    root = tmp_path_factory.mktemp("runs")

    def make(kind, *flags, name=None):
        folder = root / (name or kind)
        if not folder.exists():
            words = tiny_flags(pairs, root, folder.name)[2:]
            train.main(["--data", str(pairs if kind == "pairs" else tables(kind)), *words, "--max_steps", "2", *flags])
        return folder

    return make


def differing(one, other, *names):
    """Of the files of two runs those that aren't equal."""
    return [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]


@pytest.mark.parametrize("kind", QUICK_FIRST)
def test_every_format_trains_to_the_same_bits(kind, run):
    files = ("split.json", "model/model.safetensors", "predictions_val.csv", "quarantine.csv")
    assert differing(run(kind), run("pairs"), *files) == []


@pytest.mark.parametrize("kind", QUICK_FIRST)
def test_every_format_is_dealt_into_the_same_folds(kind, run):
    folds = ("--folds", "2", "--max_steps", "1")
    ours, reference = run(kind, *folds, name=f"folds-{kind}"), run("pairs", *folds, name="folds-pairs")
    assert differing(ours, reference, "splits/fold-0.json", "splits/fold-1.json", "predictions_oof.csv") == []


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_sharded_alike_and_streamed(kind, run, pairs, tables, tmp_path):
    written = {}
    for name, data in (("ours", tables(kind)), ("reference", pairs)):
        words = ["--data", str(data), "--output_dir", str(tmp_path / name), "--cache_dir", str(tmp_path / "cache")]
        assert shard.main([*words, "--preprocessing_num_workers", "1", "--rows_per_shard", "30"]) == 0
        shards = [load_dataset("parquet", data_files=str(path), split="train") for path in (tmp_path / name).glob("*t")]
        written[name] = [row | {"image": None} for rows in shards for row in rows]
    assert written["ours"] == written["reference"]
    if kind in QUICK:
        words = tiny_flags(tmp_path / "ours", tmp_path, "streamed")
        train.main([*words, "--streaming", "--max_steps", "2"])
        assert json.loads((tmp_path / "streamed" / "metrics.json").read_text())["val"]["num_rows"] > 0


@pytest.mark.parametrize(("kind", "output"), ANSWERED)
def test_every_format_is_answered_beside_its_own_columns(kind, output, run, tables, rows, tmp_path, evaluate_main):
    asked = tables(kind)
    evaluate_main(run("csv"), "--predict", asked, "--output", tmp_path / output)
    suffix = output.rpartition(".")[2]
    answers = load_dataset({"jsonl": "json"}.get(suffix, suffix), data_files=str(tmp_path / output), split="train")
    answers = answers.cast_column("image", Image(decode=False)) if "image" in answers.column_names else answers
    with (tmp_path / "answers.probabilities.csv").open() as file:
        expected = list(csv.DictReader(file))
    assert [row["prediction"] for row in answers] == [row["prediction"] for row in expected]
    assert [f"{row['prob_neutral']:.6f}" for row in answers] == [row["prob_neutral"] for row in expected]
    assert [(row["id"], row["text"]) for row in answers] == [(row["id"], row["text"]) for row in rows]
    evaluate_main(run("csv"), "--predict", asked, "--output", tmp_path / output)  # its own output may be replaced
