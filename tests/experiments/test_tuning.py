"""train.py --tune: nested folds judge the winners, a killed search goes on to the same result, ranks change nothing."""

import json
import sys

import pytest
import yaml
from conftest import read_csv
from launching import kill, launch, launcher, start, wait_for

import train
from modeling.errors import InputError
from training.experiments.search import Attempt, Search, mend_journal
from training.experiments.tuning_recipe import read_tuning
from training.flags.parsing import check_command_line, parse_arguments
from training.flags.search_space import Axis

SPACE = {
    "fusion": ["early", "text_only"],
    "head_learning_rate": {"low": "1e-4", "high": 0.1, "log": True},
    "fusion_dropout": {"low": 0, "high": 0.5},
    "num_train_epochs": {"low": 1, "high": 3, "step": 1},
    "per_device_train_batch_size": {"low": 8, "high": 16},
    "folds": 2,
}


@pytest.fixture
def write_recipe(base_recipe, tmp_path):
    """Factory of a recipe."""
    base = base_recipe | {"output_dir": str(tmp_path / "tuning"), "freeze": "both"}

    def write(space=SPACE, **flags):
        path = tmp_path / "heads.yaml"
        path.write_text(yaml.safe_dump(base | flags | {"tune": space}))
        return path

    return write


def read_result(folder):
    trials = [
        {name: value for name, value in row.items() if name != "seconds"} for row in read_csv(folder / "trials.csv")
    ]
    return json.loads((folder / "tuning.json").read_text()), trials


def test_winners_are_judged_by_rows_that_their_search_never_saw(write_recipe, tmp_path):
    train.main(["--tune", str(write_recipe()), "--trials", "4"])
    folder = tmp_path / "tuning"
    found, trials = read_result(folder)
    assert len(trials) == 3 * 4
    splits = [json.loads((folder / "splits" / f"fold-{number}.json").read_text()) for number in range(5)]
    held_out = [set(split["test"]) for split in splits[:2]]
    assert held_out[0] | held_out[1] == {str(number) for number in range(60)}
    for number, each in enumerate(found["folds"]):
        seen = splits[3 + number]
        assert not seen.get("test")
        assert not held_out[number] & {*seen["train"], *seen["val"]}
        assert not {int(guid) % 30 for guid in held_out[number]} & {
            int(guid) % 30 for guid in seen["train"] + seen["val"]
        }
        rows = read_csv(folder / "winners" / f"{number}_outer.csv")
        assert {row["guid"] for row in rows} == held_out[number]
        right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
        assert each["outer"] == pytest.approx(right)
        values = [float(row["value"]) for row in trials if row["search"] == str(number)]
        assert each["inner"] == max(values) == values[each["trial"]]
    average = found["average"]
    assert average["outer_interval"][0] <= average["outer"] <= average["outer_interval"][1]
    differences = [each["inner"] - each["outer"] for each in found["folds"]]
    assert average["flattery"] == pytest.approx(sum(differences) / 2)
    assert {row["guid"] for row in read_csv(folder / "winners" / "2_inner.csv")} == set(splits[2]["val"])
    model, _, training = parse_arguments(["--config", str(folder / "best.yaml")])
    assert (model.fusion, training.head_learning_rate) == (
        found["final"]["values"]["fusion"],
        found["final"]["values"]["head_learning_rate"],
    )


def test_killed_tuning_comes_to_the_same_result_on_two_ranks(write_recipe, tmp_path):
    """At whatever moment, also within a line of the journal; and with more trials it goes on from there."""
    recipe = str(write_recipe())
    train.main(["--tune", recipe, "--trials", "3"])
    whole, journal = tmp_path / "tuning", "study.log"
    train.main(["--tune", recipe, "--trials", "6"])
    expected = read_result(whole)
    assert len(expected[1]) == 18
    killed = tmp_path / "killed"
    words = ["train.py", "--tune", recipe, "--trials", "6", "--output_dir", str(killed)]
    process = start(["python"], *words, log=tmp_path / "log")
    assert wait_for(
        lambda: (killed / journal).exists() and (killed / journal).read_text().count("best_epoch") > 5, process
    )
    kill(process)
    with (killed / journal).open("a") as file:
        file.write('{"op_code":6,"wor')
    (killed / f"{journal}.lock").touch()
    kept = (killed / journal).read_text().splitlines()[:-1]
    launch(launcher("multi_gpu", 2), *words)
    assert (killed / journal).read_text().splitlines()[: len(kept)] == kept
    assert read_result(killed) == expected


@pytest.mark.slow
def test_trials_that_train_towers_are_pruned_and_made_by_all_ranks(write_recipe, tmp_path):
    space = {"head_learning_rate": {"low": 1e-4, "high": 0.05, "log": True}, "max_grad_norm": [0.5, 1], "folds": 2}
    flags = {"freeze": "image", "num_train_epochs": 2, "fusion": "early", "learning_rate": 1e-4, "bf16": False}
    recipe = str(write_recipe(space, per_device_train_batch_size=16, **flags))
    train.main(["--tune", recipe, "--trials", "7"])
    whole = tmp_path / "tuning"
    found, trials = read_result(whole)
    assert "pruned" in {row["state"] for row in trials}
    assert all(trials[each["search"] * 7 + each["trial"]]["state"] == "complete" for each in found["folds"])
    shared, words = tmp_path / "shared", ["train.py", "--tune", recipe, "--trials", "2", "--output_dir"]
    launch(launcher("multi_gpu", 2), *words, str(shared), "--per_device_train_batch_size", "8")
    assert [row["head_learning_rate"] for row in read_result(shared)[1]][::2] == [
        row["head_learning_rate"] for row in trials[::7]
    ]


def test_trial_that_is_worse_than_most_is_pruned_and_one_that_was_interrupted_is_made_again(tmp_path):
    """As a training that reports its evaluations sees it."""
    axes = {"weight_decay": Axis(low=0.1, high=0.9), "fusion": Axis((("early",), ("late",)))}

    def open_search():
        mend_journal(tmp_path / "study.log")
        return Search(tmp_path / "study.log", 0, axes, seed=1, is_greater_better=True)

    search, asked = open_search(), []
    for number in range(6):
        asked.append(search.ask(7))
        assert search.prunes(0.5 if number < 5 else 0.1, 1) == (number == 5)
        search.tell(Attempt(0.5 if number == 2 else 0.3, {"error": None}, is_pruned=number == 5))
    interrupted = search.ask(7)
    again = open_search()
    assert again.ask(7) == interrupted == (6, interrupted[1])
    assert 0.1 <= interrupted[1]["weight_decay"] <= 0.9
    again.tell(Attempt(None, {"error": "diverged"}))
    assert again.ask(7) is None
    assert len({str(values) for _, values in asked}) == 6
    winner = again.choose(7)
    assert (winner.trial, winner.value, winner.values) == (2, 0.5, asked[2][1])
    assert [row["state"] for row in again.describe(7)] == ["complete"] * 5 + ["pruned"] * 2
    assert again.describe(7)[6]["error"] == "diverged"


def test_trials_may_train_towers(write_recipe, tmp_path):
    space, flags = {"learning_rate": [1e-4, 1e-3], "folds": 2}, {"freeze": "image", "fusion": "early", "max_steps": 1}
    words = ["--tune", str(write_recipe(space, **flags)), "--trials", "1"]
    train.main(words)
    whole = tmp_path / "tuning"
    found, _ = read_result(whole)
    for each in found["folds"]:
        metrics = json.loads((whole / "members" / f"search-{each['search']}-winner" / "metrics.json").read_text())
        assert (each["inner"], each["outer"]) == (metrics["val"]["accuracy"], metrics["test"]["accuracy"])
    assert not [*whole.rglob("*.safetensors")]


@pytest.mark.parametrize(
    ("space", "flags", "message"),
    [
        ({"fusoin": ["early"]}, {}, "Did you mean --fusion"),
        ({"output_dir": ["a", "b"]}, {}, "Got output_dir in the section tune .* which can't be tuned"),
        ({"labels": [["a", "b"]]}, {}, "can't be tuned"),
        ({"split_file": ["a"]}, {}, "can't be tuned"),
        ({"seed": [1, 2]}, {}, "can't be tuned"),
        ({"fusion": "early"}, {}, "takes a list"),
        ({"fusion": {"low": 1, "high": 2}}, {}, "it takes a list of choices"),
        ({"fusion": ["early", "atn"]}, {}, "Did you mean attn"),
        ({"weight_decay": {"low": 0.1, "high": 0.1}}, {}, "an empty range"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, {}, "0 has no logarithm"),
        ({"weight_decay": {"low": 0, "high": 0.1, "step": 1}}, {}, "a step is more than 0"),
        ({"weight_decay": {"low": "a", "high": 0.1}}, {}, "or a range like"),
        ({"weight_decay": {"high": 0.1}}, {}, "or a range like"),
        ({"per_device_train_batch_size": {"low": 1.5, "high": 4}}, {}, "takes whole numbers"),
        ({"modality_dropout": {"low": 0, "high": 0.7}}, {}, "0 to 0.5"),
        ({"folds": 3}, {}, "no section `tune`"),
        ({"fusion": ["early"], "folds": 1}, {}, "whole number of at least 2"),
        ({"fusion": ["early"]}, {"fusion": "late"}, "stands twice"),
        ({"fusion": ["early"]}, {"folds": 3}, "write `folds: 5` there"),
        ({"fusion": ["early"]}, {"val_ratio": 0}, "chooses by validation rows"),
        ({"fusion": ["early"]}, {"metric_for_best_model": "loss"}, "one of accuracy, macro_f1"),
        ({"fusion": ["early"]}, {"max_train_samples": 50}, "deals all rows into folds"),
        ({"fusion": ["early"]}, {"split_file": "x"}, "splits the rows already"),
        ({"fusion": ["early"]}, {"resume_from_checkpoint": "x"}, "only latest"),
    ],
)
def test_mistakes_get_one_sentence_at_the_start(write_recipe, space, flags, message):
    words = ["--tune", str(write_recipe(space, **flags)), "--trials", "3"]
    with pytest.raises(InputError, match=message):
        check_command_line(words) or read_tuning(words)


@pytest.mark.parametrize("words", [[], ["--trials", "0"], ["--trials", "many"]])
def test_number_of_trials_is_asked_for(write_recipe, words):
    with pytest.raises(InputError, match="--trials"):
        check_command_line(["--tune", str(write_recipe()), *words])
    with pytest.raises(InputError, match="which is for --tune"):
        check_command_line(["--fusion", "early", "--trials", "3"])


def test_missing_optuna_is_one_sentence(write_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="pip install optuna"):
        read_tuning(["--tune", str(write_recipe()), "--trials", "3"])
