"""Files of predictions: what was written is read again, and what was damaged is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling.errors import InputError
from run_files.predictions_csv import read_predictions_csv, write_predictions_csv

NAMES = ("negative", "neutral", "positive")
HEADER = "guid,label,prediction,prob_negative,prob_neutral,prob_positive\n"
ROW = "7,neutral,positive,0.1,0.2,0.7\n"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    guids = ["007", "7", 'a,"b"', "1e3", "写真", "null"]
    labels = np.array([0, -100, 2, 1, 0, 2])
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=6)
    write_predictions_csv(tmp_path / "p.csv", guids, labels, probabilities, NAMES)
    first, _, third, *_ = (tmp_path / "p.csv").read_text().splitlines()
    assert (f"{first}\n", third) == (HEADER, "7,null,positive,0.00103976,0.25215560,0.74680464")
    table = read_predictions_csv(tmp_path / "p.csv")
    assert table.guids == tuple(guids)
    assert table.label_names == NAMES
    assert (table.labels == labels).all()
    np.testing.assert_allclose(table.probabilities, probabilities, atol=1e-8)
    assert (table.answers == probabilities.argmax(axis=1)).all()
    assert table.labelled().guids == ("007", 'a,"b"', "1e3", "写真", "null")


def test_other_order_of_classes_changes_the_ids_and_nothing_else(tmp_path: Path) -> None:
    labels = np.array([0, 2, -100, 1])
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    write_predictions_csv(tmp_path / "p.csv", "abcd", labels, probabilities, NAMES)
    table = read_predictions_csv(tmp_path / "p.csv")
    names = ("positive", "negative", "neutral")
    other = table.with_classes(names)
    named = [[each.label_names[number] for number in each.labels[[0, 1, 3]]] for each in (table, other)]
    assert named[0] == named[1] == ["negative", "positive", "neutral"]
    assert other.labels[2] == -100
    for number, name in enumerate(names):
        assert (other.probabilities[:, number] == probabilities[:, NAMES.index(name)]).all()


def test_classes_equal_in_all_decimals_are_no_damage(tmp_path: Path) -> None:
    # The model saw a difference in the 9th decimal.
    (tmp_path / "p.csv").write_text(HEADER + "7,neutral,positive,0.1,0.45,0.45\n")
    assert len(read_predictions_csv(tmp_path / "p.csv").guids) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first line is '' in place of guid,label,prediction,prob_CLASS"),
        (HEADER, "no row below its header"),
        ("guid,tag\n1,neutral\n", "first line is 'guid,tag'"),
        ("guid,label,prediction,prob_a\n", "first line is"),
        ("guid,label,prediction,prob_a,prob_b,prob_a\n", "a class stands twice"),
        (HEADER + ROW + "8,neutral,posi", "line 3 has 3 cells and the header 6"),
        (HEADER + ROW + ROW, "the guid '7' stands in it 2 times"),
        (HEADER + ROW.replace("neutral", "netural"), "line 2 has the label 'netural', which is none of negative"),
        (HEADER + ROW.replace("positive", "null"), "line 2 has the prediction 'null'|most probable"),
        (HEADER + ROW.replace("0.2", "x"), "not a number"),
        (HEADER + ROW.replace("0.2", "nan"), "line 2 has no probabilities that add up to 1: 0.1, nan, 0.7"),
        (HEADER + ROW.replace("0.7", "0."), "no probabilities that add up to 1"),
        ("guid,label,prediction,prob_a,prob_b\n1,a,a,1.0005,0\n", "no probabilities that add up to 1: 1.0005, 0"),
        (HEADER + ROW.replace("0.1", "-0.1").replace("0.7", "0.9"), "add up to 1"),
        (HEADER + ROW.replace("positive", "negative"), "'negative', which is not its most probable class"),
        (HEADER + '"7,neutral', "unexpected end of data"),
        (b"\xff\xfe\x00", "codec can't decode"),
    ],
)
def test_damaged_file_is_named_with_its_fault(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_predictions_csv(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_predictions_csv(tmp_path / "p.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_predictions_csv(tmp_path)
