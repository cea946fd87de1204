"""evaluate.py --predict: one answer per row of a list, what it says of the list, what it writes beside the answers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluating import LABELS, NUM_VAL, read_rows, write_pair

from evaluation.scores.calibration import apply_temperature
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")

BAD_LIST = ["p3,positive", "../x,null", "p3,neutral", "nothing,null", "half,null", "p4,unheard", "p5"]
Predict = Callable[..., Path]


@pytest.fixture
def predict(tiny_run: RunFolder, tiny_pairs: Path, tmp_path: Path, evaluate_main: Callable[..., None]) -> Predict:
    """Answer a list of this content; returns the output."""

    def run(content: str | bytes, *flags: object, data_dir: Path | None = tiny_pairs, name: str = "p.txt") -> Path:
        source, output = tmp_path / "list.txt", tmp_path / name
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        folder = [] if data_dir is None else ["--data_dir", data_dir]
        evaluate_main(tiny_run.path, "--predict", source, "--output", output, *folder, *flags)
        return output

    return run


@pytest.mark.parametrize("header", [[], ["guid,tag"]])
def test_every_row_is_answered_in_order(
    predict: Predict, tiny_pairs: Path, capsys: pytest.CaptureFixture[str], header: list[str]
) -> None:
    (tiny_pairs / "data" / "half.txt").write_text("a happy day without a picture")
    content = "\r\n".join([*header, *BAD_LIST]) + "\r\n\r\n"
    output = predict(content, data_dir=None, name="new/folder/tags.txt")
    lines = output.read_text().splitlines()
    assert lines[: len(header)] == header
    rows = [line.split(",") for line in lines[len(header) :]]
    assert [guid for guid, _ in rows] == ["p3", "../x", "p3", "nothing", "half", "p4", "p5"]
    assert {tag for _, tag in rows} <= set(LABELS)
    assert rows[0] == rows[2]

    probabilities = read_rows(output.with_name("tags.probabilities.csv"))
    assert probabilities[0] == ["guid", "prediction", *(f"prob_{label}" for label in LABELS)]
    assert [row[:2] for row in probabilities[1:]] == rows
    assert probabilities[2][2:] == probabilities[4][2:]  # nothing is known of either
    quarantine = read_rows(output.with_name("tags.quarantine.csv"))
    assert {"invalid_guid", "duplicate_guid", "missing_image", "unknown_label"} <= {row[2] for row in quarantine}
    assert json.loads(output.with_name("tags.metrics.json").read_text())["num_rows"] == 2
    assert "7 predictions are in" in capsys.readouterr().out


def test_no_files_of_an_earlier_prediction_are_left(predict: Predict, tmp_path: Path) -> None:
    predict("p1,positive\n../x,null\n", "--contributions")
    files = {path.name for path in tmp_path.iterdir()}
    assert {"p.quarantine.csv", "p.metrics.json", "p.contributions.json"} < files
    predict("p1,null\np2,null\n")
    assert {path.name for path in tmp_path.iterdir()} == {"list.txt", "p.probabilities.csv", "p.txt"}


def test_pairs_are_read_beside_the_list_unless_told_otherwise(
    predict: Predict, tiny_pairs: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    write_pair(tmp_path / "data", "new", random.Random(1))
    for folder, faulty in ((None, "p1"), (tiny_pairs, "new")):
        output = predict("new,null\np1,null\n", data_dir=folder)
        assert {row[1] for row in read_rows(output.with_name("p.quarantine.csv"))[1:]} == {faulty}


@pytest.mark.parametrize(
    ("content", "guid"),
    [
        (b"guid;tag\np1;null\n", "'guid;tag'"),
        (b"p1\tnull\n", r"'p1\\tnull'"),
        (b"tag,guid\nnull,p1\n", "'tag'"),
        (b"\x89PNG" + b"\xfe" * 300, ""),
    ],
)
def test_list_of_another_format_is_shown_as_it_was_read(
    predict: Predict, refusal: Callable[..., str], content: bytes, guid: str
) -> None:
    sentence = refusal(predict, content, data_dir=None)
    assert re.search(f"Its first row, line 1, was read as the guid {guid}", sentence)
    assert "with a comma between" in sentence
    assert len(sentence) < 900


@pytest.mark.parametrize(
    ("header", "written"), [("\ufeffID, Label", "ID,Label"), ("guid", "guid,tag"), ("id,label,note", "id,label")]
)
def test_header_of_the_list_is_kept(predict: Predict, header: str, written: str) -> None:
    lines = predict(f"{header}\n\np1,null\n").read_text().splitlines()
    assert [lines[0], *(line.split(",")[0] for line in lines[1:])] == [written, "p1"]


def test_rows_without_a_label_are_known_again_in_the_runs_own_folder(
    predict: Predict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained, judged = f"p{NUM_VAL}", "p1"
    (tmp_path / "data").mkdir()
    for guid in (trained, judged):
        write_pair(tmp_path / "data", guid, random.Random(1))
    predict(f"{judged},null\n")
    predict(f"{trained},null\n{judged},null\n", data_dir=tmp_path)
    assert "trained on" not in caplog.text
    predict(f"{trained},null\n{judged},null\n")
    assert "1 rows have the guids of rows that the run was trained on" in caplog.text


def test_confidence_that_decides_is_written(
    predict: Predict, tiny_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_VAL) % 3
    held_out = rng.dirichlet((1, 1, 1), NUM_VAL) ** 3 + 0.3 * np.eye(3)[labels]
    held_out /= held_out.sum(axis=1, keepdims=True)
    guids = [f"p{number}" for number in range(NUM_VAL)]
    write_predictions_csv(tiny_run.predictions_file, guids, labels, held_out, LABELS)
    output = predict("".join(f"{guid},null\n" for guid in guids), "--abstain", "0.95")
    screen = capsys.readouterr().out
    threshold, temperature = re.search(r"at least ([\d.]+); .* the temperature ([\d.]+),", screen).groups()
    header, *rows = read_rows(output.with_name("p.probabilities.csv"))
    assert header[-2:] == ["confidence", "answered"]
    confidence = np.array([float(row[-2]) for row in rows])
    probabilities = np.array([list(map(float, row[2:5])) for row in rows])
    assert abs(float(temperature) - 1) > 0.1  # or the columns say the same
    assert confidence == pytest.approx(apply_temperature(probabilities, float(temperature)).max(axis=1), abs=1e-4)
    assert [row[-1] == "yes" for row in rows] == (confidence >= float(threshold)).tolist()
    assert {row[-1] for row in rows} == {"yes", "no"}


def test_names_that_are_near_are_told(
    predict: Predict, refusal: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert "was read as the guid 'P1' (there is p1.txt)" in refusal(predict, "P1,null\n")
    output = predict("p1,null\nP2,null\nP3,null\n")
    assert [line.split(",")[0] for line in output.read_text().splitlines()] == ["p1", "P2", "P3"]
    assert "2 of 3 rows have neither a text nor a picture that can be used" in caplog.text
    assert "no P2.txt; there is p2.txt" in caplog.text
