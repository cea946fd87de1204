"""--task multi_label and regression, from the list to the figures, through the programs' own commands."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pyarrow as pa
import pytest
from conftest import read_csv
from datasets.table import InMemoryTable
from sklearn.metrics import f1_score

from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from run_files.predictions_csv import read_predictions_csv

WORDS = {"food": "a good meal", "sport": "a fast match", "music": "a loud song"}
COMBINATIONS = ["food", "sport", "music", "food|sport", "sport|music", "|"]
MULTI = ["--task", "multi_label", "--labels", *WORDS]
REGRESSION = ["--task", "regression"]


@pytest.fixture
def multi_label(make_pairs):
    """60 pairs whose text names their labels; one row has none, one a name that isn't asked for."""
    rows = []
    for number in range(60):
        tag = COMBINATIONS[number % len(COMBINATIONS)]
        text = " and ".join(WORDS[name] for name in tag.split("|") if name)
        rows.append((str(number), tag, f"{text or 'nothing'} number {number}"))
    return make_pairs([*rows, ("60", "null", "no label"), ("61", "food|sports", "a wrong name")], folder="tagged")


@pytest.fixture
def numbers(make_pairs):
    """60 pairs whose text tells a number from 1000 to 1002; one row has none, one has no number."""
    words = ["a bad day", "a plain day", "a good day"]
    rows = [(str(row), str(1000 + row % 3), f"{words[row % 3]} number {row}") for row in range(60)]
    return make_pairs([*rows, ("60", "null", "no label"), ("61", "nan", "no number")], folder="tagged")


def read_json(path):
    return json.loads(path.read_text())


def test_multi_label_from_the_list_to_the_figures(multi_label, run_train, evaluate_main, tmp_path):
    run, _ = run_train(*MULTI, "--num_train_epochs", "5", "--learning_rate", "1e-2", data_dir=multi_label)

    metrics, config = read_json(run / "metrics.json"), SentimentConfig.from_pretrained(run / "model")
    assert {row["guid"]: row["reason"] for row in read_csv(run / "quarantine.csv")} == {
        "60": "no_label",
        "61": "unknown_label",
    }
    assert (config.problem_type, len(config.thresholds)) == ("multi_label_classification", 3)
    assert metrics["best"]["metric"] == "map"
    assert metrics["val"]["map"] > 0.8
    table = read_predictions_csv(run / "predictions_val.csv", any_task=True)
    assert metrics["val"]["macro_f1"] == pytest.approx(f1_score(table.labels, table.answers, average="macro"))

    evaluate_main(run)
    scored = read_json(run / "evaluation_val.json")
    assert {name: scored[name] for name in ("map", "macro_f1")} == pytest.approx(
        {name: metrics["val"][name] for name in ("map", "macro_f1")}
    )
    evaluate_main(run, "--ablation")
    inputs = read_json(run / "ablation.json")["inputs"]
    assert inputs["text_only"]["map"] > inputs["image_only"]["map"]

    asked = tmp_path / "asked.txt"
    asked.write_text("guid,tag\n3,food|sport\n60,null\n")
    evaluate_main(run, "--predict", asked, "--output", tmp_path / "answers.txt", "--data_dir", multi_label)
    answers = [line.split(",") for line in (tmp_path / "answers.txt").read_text().split()]
    shares = [row[1:] for row in read_csv_cells(tmp_path / "answers.probabilities.csv")[1:]]
    names = [
        [name for name, *pair in zip(WORDS, row[1:], config.thresholds, strict=True) if float(pair[0]) >= pair[1]]
        for row in shares
    ]
    assert answers == [["guid", "tag"], ["3", "|".join(names[0]) or "|"], ["60", "|".join(names[1]) or "|"]]
    assert read_json(tmp_path / "answers.metrics.json")["num_rows"] == 1


def read_csv_cells(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def test_regression_from_the_list_to_the_figures(numbers, run_train, evaluate_main, tmp_path):
    run, screen = run_train(*REGRESSION, "--num_train_epochs", "12", data_dir=numbers)

    metrics, config = read_json(run / "metrics.json"), SentimentConfig.from_pretrained(run / "model")
    assert {row["guid"]: row["reason"] for row in read_csv(run / "quarantine.csv")} == {
        "60": "no_label",
        "61": "unknown_label",
    }
    assert (config.problem_type, config.num_labels) == ("regression", 1)
    assert config.label_mean == pytest.approx(1001, abs=0.1)
    assert "the mean 1001" in screen
    assert metrics["best"]["metric"] == "mae"
    assert metrics["val"]["mae"] < metrics["val"]["majority_baseline"]["mae"]
    rows = read_csv(run / "predictions_val.csv")
    assert list(rows[0]) == ["guid", "label", "prediction"]
    errors = [float(row["label"]) - float(row["prediction"]) for row in rows]
    assert metrics["val"]["rmse"] == pytest.approx(math.sqrt(np.square(errors).mean()), rel=1e-3)

    evaluate_main(run)
    assert read_json(run / "evaluation_val.json")["mae"] == pytest.approx(metrics["val"]["mae"], rel=1e-4)
    evaluate_main(run, "--ablation")
    inputs = read_json(run / "ablation.json")["inputs"]
    assert inputs["text_only"]["mae"] < inputs["image_only"]["mae"]

    asked = tmp_path / "asked.txt"
    asked.write_text("guid,tag\n3,1000\n60,null\n")
    for _ in range(2):  # an earlier prediction's files are known as such
        evaluate_main(run, "--predict", asked, "--output", tmp_path / "answers.txt", "--data_dir", numbers)
    answers = read_csv(tmp_path / "answers.txt")
    assert [row["guid"] for row in answers] == ["3", "60"]
    assert abs(float(answers[0]["tag"]) - 1000) < 1
    assert read_json(tmp_path / "answers.metrics.json")["num_rows"] == 1


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_folds_judge_every_row_once(task, request, run_train, evaluate_main):
    folder = request.getfixturevalue("multi_label" if task == "multi_label" else "numbers")
    flags = MULTI if task == "multi_label" else REGRESSION
    run, _ = run_train(*flags, "--folds", "2", "--seeds", "2", "--no_report", "False", data_dir=folder)

    found, first = read_json(run / "metrics.json")["out_of_fold"], "macro_f1" if task == "multi_label" else "mae"
    assert found["num_rows"] == 60
    assert found["mean"][first] == pytest.approx(np.mean([seed[first] for seed in found["seeds"].values()]))
    evaluate_main(run)
    scored = read_json(run / "evaluation_test.json")
    assert scored[first] == pytest.approx(found["averaged"][first], rel=1e-3)
    at_end = (run / "report.html").read_text()
    evaluate_main(run, "--report", "--cache_dir", run.parent / "cache")
    assert f"{found['mean'][first]:.3f}" in at_end
    assert len((run / "report.html").read_text()) > len(at_end) > 10_000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*REGRESSION, "--class_weights", "sqrt"], "--class_weights sqrt and --task regression"),
        ([*REGRESSION, "--label_smoothing_factor", "0.1"], "--label_smoothing_factor 0.1 and --task regression"),
        ([*REGRESSION, "--labels", "low", "high"], "whose labels are numbers"),
        ([*MULTI, "--logit_adjustment", "1"], "--logit_adjustment 1.0 and --task multi_label"),
        ([*MULTI, "--metric_for_best_model", "accuracy"], "'accuracy'; allowed are map, macro_f1"),
        ([*MULTI, "--streaming", "true"], "--streaming True and --task multi_label"),
        (["--task", "multi_label", "--labels", "a|b", "c"], "no name can have a |"),
    ],
)
def test_what_a_task_has_no_use_for_is_refused(flags, said, refusal, run_train):
    assert said in refusal(run_train, *flags)


def test_words_in_the_place_of_numbers_are_refused(sample, refusal, run_train):
    assert "a regression takes finite numbers" in refusal(run_train, *REGRESSION)


def test_what_a_model_of_numbers_cannot_be_asked_is_refused(numbers, run_train, evaluate_main, refusal):
    run, _ = run_train(*REGRESSION, "--max_steps", "1", data_dir=numbers)

    for flag in (["--robustness"], ["--contributions"], ["--abstain", "0.9"]):
        assert "of regression" in refusal(evaluate_main, run, *flag), flag


def test_model_of_another_task_is_refused(multi_label, run_train, evaluate_main, refusal):
    run, _ = run_train(*MULTI, "--max_steps", "1", data_dir=multi_label)
    path = run / "model" / "config.json"
    saved = read_json(path)

    for change, said in (
        ({"thresholds": [0.5]}, "thresholds that aren't one for each class"),
        ({"thresholds": [0.5, 2, 0.5]}, "thresholds.1"),
        ({"problem_type": "regression"}, "or the one of a regression"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"problem_type": None, "thresholds": None}, "names another task than its model"),
    ):
        path.write_text(json.dumps(saved | change))
        assert said in refusal(evaluate_main, run), change


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["guid,labels,predictions,prob_a,prob_b", "1,a|c,a,1,0"], "'a|c', which is none of a, b"),
        (["guid,labels,predictions,prob_a,prob_b", "1,null,a,nan,0"], "no probabilities"),
        (["guid,labels,predictions,prob_a,prob_b", "1,a,a"], "3 cells and the header 5"),
        (["guid,label,prediction", "1,2.5,inf"], "'inf', which is no finite number"),
        (["guid,label,prediction", "1,2.5,1_0"], "'1_0', which is no finite number"),
    ],
)
def test_damaged_predictions_are_refused(lines, said, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=re.escape(said)):
        read_predictions_csv(path, any_task=True)


def test_predictions_of_numbers_are_no_classes_to_compare(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("guid,label,prediction\n1,2.5,3\n")
    with pytest.raises(InputError, match="--task regression"):
        read_predictions_csv(path)
    assert read_predictions_csv(path, any_task=True).answers.tolist() == [3.0]


def test_equal_weights_of_rows_change_nothing_and_others_do(multi_label, run_train, monkeypatch):
    import data_utils.prepare.pairs as pairs

    plain, found = pairs._row_columns, {}
    for name, weights in (("none", None), ("equal", [4.0]), ("some", [0.0, 1.0])):

        def weighted(*args, weights=weights):
            table = plain(*args)
            values = pa.array(np.resize(weights or [1], table.num_rows).astype(np.float32))
            return table if weights is None else InMemoryTable(table.table.append_column("weight", values))

        monkeypatch.setattr(pairs, "_row_columns", weighted)
        run, _ = run_train(*MULTI, name=name, data_dir=multi_label)
        found[name] = read_predictions_csv(run / "predictions_val.csv", any_task=True).probabilities
    assert found["equal"] == pytest.approx(found["none"], abs=1e-5)
    assert np.abs(found["some"] - found["none"]).max() > 1e-4
