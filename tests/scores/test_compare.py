"""evaluate.py compare: the same rows for all, figures of every seed, claims that the data bear out."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from comparing import NAMES, NUM_ROWS, draw_labels, draw_probabilities, make_answers, write_run
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from evaluation.compare.comparison import compare_runs
from evaluation.compare.runs import name_runs
from evaluation.scores.metrics import bootstrap_intervals
from evaluation.scores.scoring import score_predictions
from modeling.errors import InputError
from run_files.predictions_csv import write_predictions_csv


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., str]:
    """`write_run` in the test's own folder."""
    return partial(write_run, tmp_path)


def test_figures_of_an_ordinary_run_are_those_of_its_metrics(make_run: Callable[..., str]) -> None:
    first, second = draw_probabilities(2, 3), draw_probabilities(1, 4)
    comparison = compare_runs([make_run("a", first), make_run("b", second)])
    for model, table in zip(comparison.runs, (first, second), strict=True):
        expected = score_predictions(table, draw_labels(), NAMES)
        for name in ("accuracy", "macro_f1", "weighted_f1", "ece"):
            assert model.scores.mean[name] == pytest.approx(expected[name], abs=1e-6)
            assert model.scores.std[name] is None
        for name in ("accuracy", "macro_f1"):
            assert list(model.scores.intervals[name]) == pytest.approx(expected[f"{name}_interval"])
    baseline = expected["majority_baseline"]
    assert {name: comparison.majority[name] for name in baseline} == baseline
    always = np.full(NUM_ROWS, 2)
    assert comparison.majority["macro_f1"] == pytest.approx(f1_score(draw_labels(), always, average="macro"))
    assert any("validation rows of one split" in remark for remark in comparison.remarks)


def test_one_seed_has_no_second_figure_and_unlabelled_rows_are_left_out(make_run: Callable[..., str]) -> None:
    labels = draw_labels()
    labels[::3] = -100
    run = make_run("a", draw_probabilities(1, 5), labels=labels, folds=True)
    file = make_run("b", draw_probabilities(1, 6), labels=labels) + "/predictions_val.csv"
    comparison = compare_runs([run, file])
    assert comparison.num_rows == 400
    assert [each.name for each in comparison.runs] == ["a", "predictions_val.csv"]
    assert [each.averaged for each in comparison.runs] == [{}, {}]
    assert comparison.runs[1].cost["total"] is None
    assert "seeds averaged" not in " ".join(comparison.sentences)
    assert any("One seed alone, which may be luck: a." in remark for remark in comparison.remarks)


def test_folds_run_shows_mean_over_seeds_and_is_tested_by_their_average(make_run: Callable[..., str]) -> None:
    labels, tables = draw_labels(), [draw_probabilities(1.5, seed) for seed in (5, 6, 7)]
    others = [draw_probabilities(1.2, seed) for seed in (15, 16, 17)]
    comparison = compare_runs([make_run("a", *tables, folds=True), make_run("b", *others, folds=True)])
    model = comparison.runs[0]
    answers = [table.argmax(axis=1) for table in tables]
    scores = [f1_score(labels, each, average="macro") for each in answers]
    assert tuple(model.seeds) == ("9", "10", "11")  # by number, not as text
    assert model.scores.values["macro_f1"] == pytest.approx(scores)
    assert model.scores.mean["macro_f1"] == pytest.approx(np.mean(scores))
    assert model.scores.std["macro_f1"] == pytest.approx(np.std(scores, ddof=1))
    assert model.scores.intervals == bootstrap_intervals(answers, labels, 3)
    averaged = np.mean(tables, axis=0).argmax(axis=1)
    assert model.averaged["accuracy"] == pytest.approx(accuracy_score(labels, averaged))
    assert model.averaged["accuracy"] != pytest.approx(model.scores.mean["accuracy"])
    difference = comparison.pairs[0].differences["accuracy"].value
    other = np.mean(others, axis=0).argmax(axis=1)
    assert difference == pytest.approx(accuracy_score(labels, averaged) - accuracy_score(labels, other))
    assert "600 rows, seeds averaged" in comparison.sentences[0]
    assert any("pairs are tested on the seeds' mean answers" in remark for remark in comparison.remarks)


def test_order_of_rows_and_classes_is_no_matter(make_run: Callable[..., str], tmp_path: Path) -> None:
    labels, first, second = draw_labels(), draw_probabilities(2, 3), draw_probabilities(1, 4)
    guids = np.array([str(number) for number in range(NUM_ROWS)])
    order, classes = np.random.default_rng(0).permutation(NUM_ROWS), [2, 0, 1]
    straight = compare_runs([make_run("a", first, guids=guids), make_run("b", second, guids=guids)])
    new_labels = np.argsort(classes)[labels]
    mixed = {"guids": guids[order], "labels": new_labels[order], "names": [NAMES[number] for number in classes]}
    write = make_run("mixed/b", second[order][:, classes], **mixed)
    assert compare_runs([str(tmp_path / "a"), write]).pairs == straight.pairs


def test_better_run_is_named_first_whatever_the_order(make_run: Callable[..., str]) -> None:
    labels = draw_labels()
    good, bad = make_run("good", make_answers(range(40), labels)), make_run("bad", make_answers(range(100), labels))
    for paths in ((good, bad), (bad, good)):
        sentence = compare_runs(paths).sentences[0]
        match = re.fullmatch(
            r"good is better than bad: accuracy \+10\.0 points \[(.+), (.+)\], p < 0\.0001 "
            r"\(exact McNemar, 600 rows\)\.",
            sentence,
        )
        assert match, sentence
        assert 5 < float(match[1]) < 10 < float(match[2]) < 15


def test_undecided_pair_says_how_many_rows_would_do(make_run: Callable[..., str]) -> None:
    """The number in the sentence gives the power it promises, in simulated data of the rates seen."""
    labels = draw_labels()
    paths = [
        make_run("a", make_answers(range(100, 160), labels)),
        make_run("b", make_answers(range(148, 220), labels)),
    ]
    pair = compare_runs(paths).pairs[0]
    assert (pair.only_first, pair.only_second) == (60, 48)
    sentence = pair.sentence("accuracy")
    assert "These data cannot tell a and b apart in accuracy (first minus second: +2.0 points [" in sentence
    match = re.search(r"with the rates seen here, about ([\d,]+) more rows would be needed", sentence)
    total = NUM_ROWS + int(match[1].replace(",", ""))
    shares = [60 / NUM_ROWS, 48 / NUM_ROWS, 1 - 108 / NUM_ROWS]
    counts = np.random.default_rng(0).multinomial(total, shares, size=4000)
    p_values = 2 * binom.cdf(counts[:, :2].min(axis=1), counts[:, :2].sum(axis=1), 0.5)
    assert 0.77 <= np.mean(p_values < 0.05) <= 0.84
    equal = [make_run(str(start), make_answers(range(start, start + 9), labels)) for start in (0, 9)]
    sentence = compare_runs(equal).sentences[0]
    assert "the difference is exactly 0, so no number of rows" in sentence
    assert "p = 1, exact McNemar" in sentence


def test_claims_need_the_corrected_p_value(make_run: Callable[..., str]) -> None:
    """A difference that would do for one pair is no claim among six."""
    labels = draw_labels()
    wrong = {"a": range(20, 28), "b": range(0, 20), "c": range(28, 36), "d": range(36, 44)}
    paths = {name: make_run(name, make_answers(rows, labels)) for name, rows in wrong.items()}
    alone = compare_runs([paths["a"], paths["b"]]).pairs[0]
    assert alone.differences["accuracy"].p_value == alone.adjusted["accuracy"] < 0.05
    assert "a is better than b" in alone.sentence("accuracy")
    assert "Holm" not in alone.sentence("accuracy")
    pair = compare_runs(list(paths.values())).pairs[0]
    assert (pair.first, pair.second) == ("a", "b")
    assert pair.differences == alone.differences
    assert pair.adjusted["accuracy"] == pytest.approx(6 * alone.adjusted["accuracy"])
    assert "cannot tell a and b apart" in pair.sentence("accuracy")
    assert "after Holm's correction" in pair.sentence("accuracy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guids": [f"{number:04d}" for number in range(100, 700)]}, r"a 600, b 600, of which 500 are common"),
        ({"guids": [str(number) for number in range(1000, 1600)]}, r"0 are common to all.*--seed\)\.$"),
        ({"labels": np.roll(draw_labels(), 1)}, r"of 600 rows have one label in a and another one in b"),
        ({"names": ("negative", "neutral", "happy")}, "negative, neutral, positive and b has negative, neutral, happy"),
        ({"labels": np.full(NUM_ROWS, -100)}, "None of the 600 rows"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused(make_run: Callable[..., str], change: dict, message: str) -> None:
    paths = [make_run("a", draw_probabilities(1, 3)), make_run("b", draw_probabilities(1, 4), **change)]
    with pytest.raises(InputError, match=message):
        compare_runs(paths)


def test_common_rows_are_compared_when_asked_for(make_run: Callable[..., str]) -> None:
    labels, first, second = draw_labels(), draw_probabilities(2, 3), draw_probabilities(1, 4)
    guids = [f"{number:04d}" for number in range(NUM_ROWS)]
    a = make_run("a", first[:500], labels=labels[:500], guids=guids[:500])
    b = make_run("b", second[100:], labels=labels[100:], guids=guids[100:])
    with pytest.raises(InputError, match="add --common_rows to compare the 400 rows"):
        compare_runs([a, b])
    comparison = compare_runs([a, b], common_rows=True)
    assert comparison.num_rows == 400
    assert comparison.runs[0].scores.mean["accuracy"] == (first.argmax(axis=1) == labels)[100:500].mean()
    assert any("200 rows that not all runs judge are left out" in remark for remark in comparison.remarks)
    other = make_run("c", second[100:], labels=np.roll(labels[100:], 1), guids=guids[100:])
    with pytest.raises(InputError, match="have one label in a"):
        compare_runs([a, other], common_rows=True)


def test_files_of_other_trainings_are_noticed(make_run: Callable[..., str]) -> None:
    first = make_run("a", draw_probabilities(2, 3), draw_probabilities(2, 4), folds=True)
    stale = Path(make_run("b", draw_probabilities(2, 3), draw_probabilities(2, 4), folds=True))
    seed_file, guids = stale / "predictions_oof_seed12.csv", [f"{number:04d}" for number in range(NUM_ROWS)]
    write_predictions_csv(seed_file, guids, draw_labels(), draw_probabilities(0, 8), NAMES)
    with pytest.raises(InputError, match=r"not of one training.* its seeds 9, 10, 12"):
        compare_runs([first, str(stale)])
    write_predictions_csv(seed_file, guids[1:], draw_labels()[1:], draw_probabilities(0, 8)[1:], NAMES)
    with pytest.raises(InputError, match="not of one training"):
        compare_runs([first, str(stale)])
    (stale / "predictions_oof.csv").unlink()
    with pytest.raises(InputError, match="is not finished"):
        compare_runs([first, str(stale)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has a list, where a map belongs"),
        ('{"training": 5}', "has training: 5, where a map or nothing belongs"),
        ("\xff", "is no JSON"),
    ],
)
def test_damaged_metrics_are_named(make_run: Callable[..., str], content: str, message: str) -> None:
    paths = [make_run("a", draw_probabilities(2, 3)), make_run("b", draw_probabilities(1, 4))]
    (Path(paths[1]) / "metrics.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=rf"metrics\.json {message}"):
        compare_runs(paths)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["x/run", "y/run", "other"], ["x/run", "y/run", "other"]),
        (["x/p/run", "y/p/run"], ["x/p/run", "y/p/run"]),
        (["/run", "/x/run"], ["run", "x/run"]),
    ],
)
def test_names_are_short_and_unique(paths: list[str], names: list[str]) -> None:
    assert name_runs(paths) == names
