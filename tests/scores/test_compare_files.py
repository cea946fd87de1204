"""What evaluate.py compare prints, writes and draws, and how it answers mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from comparing import draw_labels, draw_probabilities, make_answers, write_run
from conftest import read_csv
from PIL import Image

from evaluation.arguments import parse_comparison
from evaluation.compare.comparison import compare_runs, format_p, format_points
from evaluation.compare.report import draw_comparison, format_comparison, run_compare
from evaluation.scores.paired_tests import Difference
from modeling.errors import InputError


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., str]:
    """`write_run` in the test's own folder."""
    return partial(write_run, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: RUN"),
        (["a"], "pass two or more"),
        (["a", "b", "../{here}/a"], "none of them twice"),
        (["a", "nowhere"], "'nowhere', which has no predictions"),
        (["a", "b", "--seed", "3"], "which is no flag of evaluate.py compare"),
        (["a", "b", "--output", "a/metrics.json"], "choose a folder that may be written to"),
    ],
)
def test_mistakes_get_one_sentence(
    make_run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    make_run("a", draw_probabilities(2, 3), metrics={})
    make_run("b", draw_probabilities(1, 4))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run_compare(parse_comparison([word.format(here=tmp_path.name) for word in words]))


def test_p_values_and_points_are_rounded_without_lies() -> None:
    assert [format_p(p) for p in (0.6, 0.0042, 0.00001, 1.0)] == ["p = 0.6", "p = 0.0042", "p < 0.0001", "p = 1"]
    assert format_p(0.0499) == "p = 0.0499"  # 0.05 would be no reason for a claim
    assert format_p(0.0501) == "p = 0.05"
    assert format_points(Difference(0.0213, -0.0004, 0.034, 0.1, None)) == "+2.1 points [0.0, 3.4]"


def test_files_hold_what_the_screen_shows(
    make_run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"parameters": {"total": 2_500_000, "trainable": 400_000}, "training": {"seconds": 90.0}}
    folds = make_run("of folds", draw_probabilities(2, 3), draw_probabilities(2, 4), folds=True, metrics=metrics)
    metrics["training"]["resumed_at_step"] = 5
    single = make_run("single|run", draw_probabilities(0, 5), metrics=metrics | {"best": {"metric": "macro_f1"}})
    run_compare(parse_comparison([folds, single, "--output", str(tmp_path / "new" / "out")]))
    out, screen = tmp_path / "new" / "out", capsys.readouterr().out
    names = {"comparison.md", "comparison.csv", "pairs.csv", "comparison.json", "comparison.png", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    content = json.loads((out / "comparison.json").read_text())
    models = read_csv(out / "comparison.csv")
    assert [row["run"] for row in models] == ["of folds", "single|run", "always positive"]
    assert float(models[0]["accuracy_std"]) == content["models"][0]["std"]["accuracy"]
    assert [row["seeds"] for row in models] == ["9 10", "", ""]
    # The seconds of a resumed run are the last launch's alone.
    assert [(row["parameters"], row["trainable"], row["seconds"]) for row in models] == [
        ("2500000", "400000", "90.0"),
        ("2500000", "400000", ""),
        ("", "", ""),
    ]
    pairs = read_csv(out / "pairs.csv")
    assert pairs[0]["accuracy_sentence"] == content["pairs"][0]["sentences"]["accuracy"]
    assert float(pairs[0]["macro_f1_p"]) == content["pairs"][0]["differences"]["macro_f1"]["p_value"]
    text = (out / "comparison.md").read_text()
    for sentence in (*content["pairs"][0]["sentences"].values(), *content["remarks"]):
        assert sentence in screen
        assert sentence in text
    cells = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}
    assert len(cells) == 2  # two tables, each with as many cells in every line
    assert re.search(r"^of folds .* 2\.50 M +0\.40 M +1\.5 min$", screen, re.MULTILINE)
    assert re.search(r"^single\|run .* 2\.50 M +0\.40 M$", screen, re.MULTILINE)
    for remark in ("Some runs are of folds", "The runs have 2, 1 seeds", "single|run (macro_f1)", "No better than"):
        assert remark in screen
    with Image.open(out / "comparison.png") as picture:
        assert picture.size[0] == 1500
        assert np.asarray(picture).std() > 5


def test_times_are_told_in_the_unit_that_fits(make_run: Callable[..., str]) -> None:
    times = {"short": (0.8, "1 s"), "long": (90.0, "1.5 min"), "longest": (20_160.0, "5.6 h")}
    paths = [
        make_run(name, draw_probabilities(1, number), metrics={"training": {"seconds": seconds}})
        for number, (name, (seconds, _)) in enumerate(times.items())
    ]
    screen = format_comparison(compare_runs(paths))
    for name, (_, shown) in times.items():
        assert re.search(rf"^{name} .* {shown}$", screen, re.MULTILINE)


def test_other_ranks_print_and_write_nothing(
    make_run: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [make_run("a", draw_probabilities(2, 3)), make_run("b", draw_probabilities(1, 4))]
    monkeypatch.setenv("RANK", "1")
    run_compare(parse_comparison([*paths, "--output", str(tmp_path / "out")]))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_runs", [2, 12])
def test_picture_keeps_labels_apart_and_inside(make_run: Callable[..., str], num_runs: int) -> None:
    labels = draw_labels()
    names = [f"a run of $x_{number}$ with a rather long name-{number}" for number in range(num_runs)]
    tables = [make_answers(range(20 * (number + 1)), labels) for number in range(num_runs)]
    paths = [make_run(name, table, folds=True) for name, table in zip(names, tables, strict=True)]
    comparison = compare_runs(paths)
    figure = draw_comparison(comparison.runs, comparison.majority)
    figure.draw_without_rendering()
    texts = figure.axes[0].get_yticklabels()
    assert [re.sub(r"\s", "", text.get_text()) for text in texts] == [name.replace(" ", "") for name in names]
    boxes = [text.get_window_extent() for text in texts]
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.axes[0].bbox.x0 for box in boxes)
    for panel, metric in zip(figure.axes, ("accuracy", "macro_f1"), strict=True):
        low, high = panel.get_xlim()
        ends = [end for model in comparison.runs for end in model.scores.intervals[metric]]
        assert low < min(*ends, comparison.majority[metric])
        assert max(ends) < high
