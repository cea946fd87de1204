"""evaluate.py --predict: what it says of a list, and what it writes beside the answers."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluating import LABELS, NUM_VAL, write_pair

from evaluation.scores.calibration import apply_temperature
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")


@pytest.mark.parametrize(
    ("content", "guid"),
    [
        (b"guid;tag\np1;null\n", "'guid;tag'"),
        (b"p1\tnull\n", r"'p1\\tnull'"),
        (b"tag,guid\nnull,p1\n", "'tag'"),
        (b"\x89PNG" + b"\xfe" * 300, None),
    ],
)
def test_list_of_another_format_is_shown_as_it_was_read(
    tiny_run: RunFolder,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    guid: str | None,
) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SystemExit):
        evaluate_main(tiny_run.path, "--predict", tmp_path / "list.txt", "--output", tmp_path / "p.txt")
    stderr = capsys.readouterr().err
    assert re.search(f"Its first row, line 1, was read as the guid {guid or ''}", stderr)
    assert "with a comma between" in stderr
    assert len(stderr) < 900


def test_header_of_the_list_is_kept(
    tiny_run: RunFolder, tmp_path: Path, tiny_pairs: Path, evaluate_main: Callable[..., None]
) -> None:
    source, output = tmp_path / "list.txt", tmp_path / "p.txt"
    for header, written in (("\ufeffID, Label", "ID,Label"), ("guid", "guid,tag"), ("id,label,note", "id,label")):
        source.write_text(f"{header}\n\np1,null\n", encoding="utf-8")
        evaluate_main(tiny_run.path, "--predict", source, "--output", output, "--data_dir", tiny_pairs)
        lines = output.read_text().splitlines()
        assert lines[0] == written
        assert [line.split(",")[0] for line in lines[1:]] == ["p1"]


def test_rows_without_a_label_are_known_again_in_the_runs_own_folder(
    tiny_run: RunFolder,
    tiny_pairs: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained, judged = f"p{NUM_VAL}", "p1"
    (tmp_path / "data").mkdir()
    for guid in (trained, judged):
        write_pair(tmp_path / "data", guid, random.Random(1))

    def predict(folder: Path, *guids: str) -> str:
        caplog.clear()
        (tmp_path / "list.txt").write_text("".join(f"{guid},null\n" for guid in guids))
        words = ["--predict", tmp_path / "list.txt", "--output", tmp_path / "p.txt", "--data_dir", folder]
        evaluate_main(tiny_run.path, *words)
        return caplog.text

    assert "1 of the rows without a label are rows that the run was trained on" in predict(tiny_pairs, trained, judged)
    assert "trained on" not in predict(tiny_pairs, judged)
    assert "trained on" not in predict(tmp_path, trained, judged)


def test_confidence_that_decides_is_written(
    tiny_run: RunFolder,
    tiny_pairs: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_VAL) % 3
    held_out = rng.dirichlet((1, 1, 1), NUM_VAL) ** 3 + 0.3 * np.eye(3)[labels]
    held_out /= held_out.sum(axis=1, keepdims=True)
    guids = [f"p{number}" for number in range(NUM_VAL)]
    write_predictions_csv(tiny_run.predictions_file, guids, labels, held_out, LABELS)
    source, output = tmp_path / "list.txt", tmp_path / "p.txt"
    source.write_text("".join(f"{guid},null\n" for guid in guids))
    words = ["--predict", source, "--output", output, "--data_dir", tiny_pairs, "--abstain", "0.95"]
    evaluate_main(tiny_run.path, *words)
    screen = capsys.readouterr().out
    threshold, temperature = re.search(r"at least ([\d.]+); .* the temperature ([\d.]+),", screen).groups()
    with output.with_name("p.probabilities.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    confidence = np.array([float(row["confidence"]) for row in rows])
    probabilities = np.array([[float(row[f"prob_{name}"]) for name in LABELS] for row in rows])
    assert abs(float(temperature) - 1) > 0.1  # or the columns say the same
    assert confidence == pytest.approx(apply_temperature(probabilities, float(temperature)).max(axis=1), abs=1e-4)
    assert [row["answered"] == "yes" for row in rows] == (confidence >= float(threshold)).tolist()
    assert {row["answered"] for row in rows} == {"yes", "no"}


def test_names_that_are_near_are_told(
    tiny_run: RunFolder,
    tiny_pairs: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, output = tmp_path / "list.txt", tmp_path / "p.txt"
    words = [tiny_run.path, "--predict", source, "--output", output, "--data_dir", tiny_pairs]
    source.write_text("P1,null\n")
    with pytest.raises(SystemExit):
        evaluate_main(*words)
    assert "was read as the guid 'P1' (there is p1.txt)" in capsys.readouterr().err
    source.write_text("p1,null\nP2,null\nP3,null\n")
    evaluate_main(*words)
    assert [line.split(",")[0] for line in output.read_text().splitlines()] == ["p1", "P2", "P3"]
    assert "2 of 3 rows have neither a text nor a picture that can be used" in caplog.text
    assert "no P2.txt; there is p2.txt" in caplog.text
