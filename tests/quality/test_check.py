"""python -m data_utils.check: what it finds, writes, shows and refuses."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from conftest import LABELS, draw_photo, read_csv
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.data_check import plant
from data_utils.check.__main__ import main
from data_utils.quality.odd import name_odd
from data_utils.quality.twins import bound_reader
from data_utils.sample import main as draw_sample
from run_files.predictions_csv import write_predictions_csv

SHORT = "some words of a tweet that stands alone"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A checked sample with wrong labels and near copies: what was planted, and the folder of the check."""
    root = tmp_path_factory.mktemp("planted")
    draw_sample(["--output_dir", str(root / "sample"), "--num_pairs", "400", "--num_test", "1"])
    found = plant(root / "sample", root / "pairs")
    words = ["--data_dir", str(root / "pairs"), "--cache_dir", str(root / "cache"), "--output_dir", str(root / "check")]
    assert main([*words, "--preprocessing_num_workers", "1"]) == 0
    return found, root


@pytest.fixture
def check(tmp_path):
    """Run a check of a folder without looking for wrong labels; returns the exit code and check.json."""

    def run(folder, *flags, labels_by="none"):
        words = ["--data_dir", str(folder), "--cache_dir", str(tmp_path / "cache"), "--preprocessing_num_workers", "1"]
        code = main([*words, "--output_dir", str(tmp_path / "check"), "--labels_by", labels_by, *flags])
        path = tmp_path / "check" / "check.json"
        return code, json.loads(path.read_text()) if path.exists() else None

    return run


def test_planted_copies_and_labels_are_found(planted):
    found, root = planted
    for name, ways in (("near_texts", found.texts), ("near_pictures", found.pictures)):
        group_of = {row["guid"]: row["group"] for row in read_csv(root / "check" / f"{name}.csv")}
        right = [group_of.get(guid, guid) == group_of.get(copy, copy) for guid, copy in ways]
        assert np.mean(right) > 0.8
    suspects = read_csv(root / "check" / "labels.csv")
    hits = [row["guid"] in found.labels for row in suspects]
    assert sum(hits) > 0.6 * len(found.labels)
    assert np.mean(hits[: len(found.labels) // 2]) > 0.6
    assert [float(row["probability"]) for row in suspects] == sorted(float(row["probability"]) for row in suspects)


def test_a_twin_that_says_otherwise_stands_beside_a_suspect(planted):
    found, root = planted
    wrong_twins = [pair for pair in found.texts if len(found.labels & {*pair}) == 1]
    twin_of = {row["guid"]: row for row in read_csv(root / "check" / "labels.csv")}

    for pair in wrong_twins:
        assert any(guid in twin_of and twin_of[guid]["twin_label"] not in ("", twin_of[guid]["label"]) for guid in pair)


def test_page_stands_alone_and_shows_what_was_found(planted):
    _, root = planted
    page = (root / "check" / "check.html").read_text()
    figures = json.loads((root / "check" / "check.json").read_text())

    assert len(page) < 5_000_000
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert f"{figures['counts']['rows']:,} rows" in page
    assert {path.name for path in (root / "check").iterdir()} >= {f"{name}.csv" for name in ("leaks", "odd_pictures")}


def test_leaks_between_saved_parts_end_with_one(planted, check, capsys):
    found, root = planted
    pairs = sorted(found.texts)
    split = {"train": [guid for guid, _ in pairs], "val": [copy for _, copy in pairs]}
    path = root / "split.json"
    path.write_text(json.dumps(split))

    code, figures = check(root / "pairs", "--split_file", str(path), "--fail_on", "leaks,missing")

    assert code == 1
    assert figures["problems"]["leaks"] > 0.8 * len(pairs)
    screen = capsys.readouterr().out.splitlines()
    assert screen[-1].startswith("failed by --fail_on: ")
    assert "missing" not in screen[-1]
    allowed, _ = check(root / "pairs", "--split_file", str(path), "--fail_on", "leaks=1000", "contradictions=0.9")
    assert allowed == 0


def test_leaks_between_declared_files(tmp_path):
    for name, texts in (
        ("train", ("a tweet about trains and rain", "joy")),
        ("dev", ("A tweet about trains & rain!", "x")),
    ):
        rows = [f"{text},{label}" for text, label in zip(texts, ("good", "bad"), strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    words = ["--data", str(tmp_path / "train.csv"), "--val_data", str(tmp_path / "dev.csv"), "--fail_on", "leaks"]

    code = main([*words, "--output_dir", str(tmp_path / "check"), "--cache_dir", str(tmp_path / "cache")])

    assert code == 1
    assert [row["part"] for row in read_csv(tmp_path / "check" / "leaks.csv")] == ["train", "val"]


def test_labels_are_judged_by_predictions_of_models(make_pairs, check, tmp_path):
    folder = make_pairs([(str(number), LABELS[number % 3]) for number in range(30)])
    shares = np.full((30, 3), 0.05)
    shares[np.arange(30), np.arange(30) % 3] = 0.9
    shares[4] = 0.97, 0.01, 0.02  # of a row labelled neutral
    write_predictions_csv(tmp_path / "answers.csv", [str(n) for n in range(30)], np.arange(30) % 3, shares, LABELS)

    _, figures = check(folder, "--predictions", str(tmp_path / "answers.csv"), labels_by="probe")

    assert figures["labels"] | {"accuracy": 0} == {"by": "predictions", "rows": 30, "accuracy": 0, "suspects": 1}
    (row,) = read_csv(tmp_path / "check" / "labels.csv")
    assert (row["guid"], row["label"], row["suggested"]) == ("4", "neutral", "negative")


def test_hostile_rows_are_checked(make_pairs, check):
    rows = [(str(number), LABELS[number % 3]) for number in range(12)]
    rows += [
        ("20", "positive", "<script>alert(1)</script>\u202e\0", b"no picture"),
        ("21", "negative", b"\xff\xfe\x00"),
    ]
    rows += [("22", "neutral", "=cmd|' /C calc'!A0", Image.new("RGB", (1, 4000))), ("../x", "neutral"), ("23", "odd")]
    folder = make_pairs(rows)

    code, figures = check(folder, labels_by="probe")

    assert code == 0
    assert figures["problems"]["quarantine"] >= 3
    page = (folder.parent / "check" / "check.html").read_text()
    assert "<script>alert" not in page


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_are_checked_without_label_errors(tmp_path, task):
    cells = ("1", "2.5") if task == "regression" else ("good", "good|odd")
    rows = [f"{SHORT} {'again' * (number % 2)},{cells[number % 2]}" for number in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    words = ["--data", str(tmp_path / "train.csv"), "--task", task, "--cache_dir", str(tmp_path / "cache")]

    assert main([*words, "--output_dir", str(tmp_path / "check")]) == 0
    assert json.loads((tmp_path / "check" / "check.json").read_text())["labels"]["by"] is None


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--fail_on", "leak"], "leaks"),
        (["--fail_on", "leaks=-1"], "leaks=-1"),
        (["--fail_on", "labels=many"], "labels=many"),
        (["--predictions", "none.csv"], "none.csv"),
        (["--page_rows", "0"], "page_rows"),
        (["--split_file", "no_split.json"], "no_split.json"),
    ],
)
def test_mistakes_are_told(sample, check, capsys, flags, word):
    labels_by = "probe" if flags[0] == "--predictions" else "none"

    assert check(sample, *flags, labels_by=labels_by)[0] == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert word in line


def test_without_cleanlab_one_sentence_says_what_to_install(sample, check, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab.filter", None)

    assert check(sample, labels_by="probe")[0] == 2
    assert "pip install" in capsys.readouterr().err


def write_page(seed):
    """A picture of lines of letters."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (400, 300), (248, 248, 244))
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for top in range(10, 280, 28):
        words = ["".join(rng.choice([*"abdeghikmnoprstu"], rng.integers(2, 9))) for _ in range(7)]
        canvas.text((12, top), " ".join(words), fill=(20, 20, 24), font=font)
    return picture


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda seed: draw_photo(seed, (400, 300)), None),
        (lambda seed: draw_photo(seed, (400, 300)).filter(ImageFilter.GaussianBlur(6)), "blurred"),
        (lambda seed: draw_photo(seed, (400, 300)).point(lambda level: level // 8), "dark"),
        (lambda seed: Image.new("RGB", (400, 300), (seed * 9, 80, 120)), "one colour"),
        (write_page, "screenshot of text"),
    ],
)
def test_odd_pictures_are_named(change, kind):
    pictures = (change(seed).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for seed in range(8))

    assert Counter(name_odd(np.asarray(each).transpose(2, 0, 1)) for each in pictures).most_common(1)[0] == (kind, 8)


def test_reader_of_twins_is_bounded_by_how_often_they_differ():
    agreeing = bound_reader(np.repeat(np.arange(50), 2), np.repeat(np.arange(50) % 3, 2), 3)
    labels = np.random.default_rng(0).integers(0, 2, 4000)
    guessing = bound_reader(np.repeat(np.arange(2000), 2), labels, 2)
    noisy = np.where(
        np.random.default_rng(1).random(4000) < 0.1,
        1 - np.repeat(np.arange(2000) % 2, 2),
        np.repeat(np.arange(2000) % 2, 2),
    )

    assert agreeing["accuracy"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert guessing["accuracy"]["value"] == pytest.approx(0.5, abs=0.15)
    low, high = bound_reader(np.repeat(np.arange(2000), 2), noisy, 2)["accuracy"]["interval"]
    assert low < 0.9 < high  # a tenth of the labels was drawn wrong
    assert bound_reader(np.arange(5), np.zeros(5, int), 3) is None
