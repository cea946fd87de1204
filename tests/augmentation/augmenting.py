"""Pairs that are augmented, and predictions that misjudge them: fixtures that a file takes by their names."""

import hashlib
import json

import numpy as np
import pytest
from conftest import LABELS, draw_photo

from data_utils.augment.__main__ import main
from data_utils.augment.manifest import MANIFEST
from run_files.predictions_csv import write_predictions_csv

TEXTS = {
    "1": "RT @ann: Photos of the amazing cake! #yum http://t.co/amazing",
    "2": "i love this amazing movie, thanks so much @movie 😀",
    "3": "#photo #only #tags",
    "4": "@nobody http://t.co/x",
    "5": "今天和朋友一起去看电影, 非常开心!#北京#",
    "6": "the abandoned house is gloomy… and it looks like nobody is there".encode("gb18030"),
    "7": "we bought a huge gift for the kids today",
    "7_t1": "a guid that looks like an amazing copy of the other row",
    "8": "feeling exhausted, the movie was awful",
    "9": "this one is judged rightly and has a photo",
}
RIGHT = "9"


@pytest.fixture
def folder(make_pairs):
    """Ten pairs; 8 has no picture, and 2_i1.png is a stray file."""
    rows = [(guid, LABELS[number % 3], text) for number, (guid, text) in enumerate(TEXTS.items())]
    root = make_pairs([(*row, None) if row[0] == "8" else row for row in rows])
    draw_photo("stray").save(root / "data" / "2_i1.png")
    return root


@pytest.fixture
def predict(folder, tmp_path):
    """Factory of a table that misjudges all rows of the list but one, or those of `guids` with class ids `labels`."""

    def write(name="predictions.csv", guids=None, labels=None):
        found = dict(line.split(",") for line in (folder / "train.txt").read_text().splitlines()[1:])
        guids = guids or list(found)
        ids = labels or [LABELS.index(found[guid]) for guid in guids]
        answers = [label if guid == RIGHT else (label + 1) % 3 for guid, label in zip(guids, ids, strict=True)]
        write_predictions_csv(tmp_path / name, guids, ids, 0.7 * np.eye(3)[answers] + 0.1, LABELS)
        return tmp_path / name

    return write


def run(folder, *words, predictions=None):
    given = [] if predictions is None else ["--predictions", str(predictions)]
    return main(["--data_dir", str(folder), *given, *words])


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def read_manifest(folder):
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
