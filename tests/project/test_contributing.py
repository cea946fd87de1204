"""The worked examples of CONTRIBUTING.md, put into a copy of the project: they are taken, trained and reported."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import ROOT
from launching import launch, train_flags

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
MAX_LINES = 40


def examples():
    """The changed files of every diff, each with its pieces: (lines that stand there, lines to stand there)."""
    for diff in re.findall(r"```diff\n(.*?)```", PAGE, flags=re.DOTALL):
        assert len(diff.splitlines()) <= MAX_LINES
        for part in re.split(r"^--- a/.*\n", diff, flags=re.MULTILINE)[1:]:
            head, *pieces = re.split(r"^@@\n", part, flags=re.MULTILINE)
            yield head.removeprefix("+++ b/").strip(), [piece.splitlines() for piece in pieces]


def apply(text, pieces):
    """Each piece in turn, from where the last one ended."""
    place = 0
    for lines in pieces:
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
        start = text.index(before, place)
        text = text[:start] + after + text[start + len(before) :]
        place = start + len(after)
    return text


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the project with all examples."""
    folder = tmp_path_factory.mktemp("contributing") / "project"
    for name in ("modeling", "data_utils", "run_files", "evaluation", "training"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / name, folder)
    for name, pieces in examples():
        path = folder / name
        path.write_text(apply(path.read_text(), pieces))
    return folder


def test_examples_are_taken_trained_and_reported(changed, make_pairs, numbered_rows, tmp_path):
    rows = numbered_rows(24)
    pairs = make_pairs(rows)
    lines = [f"{guid}|words of {guid}|data/{guid}.jpg|{label}" for guid, label in rows]
    (pairs / "rows.psv").write_text("\n".join(["id|text|image|label", *lines]))
    words = train_flags(pairs, tmp_path / "run", "--fusion", "gated", "--bf16", "False")
    launch(["python"], *words, "--data", str(pairs / "rows.psv"), folder=changed)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["parameters"]["fusion"] > 0
    assert -1 <= metrics["val"]["matthews"] <= 1
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["fusion"] == "gated"
