"""evaluate.py from the command line: figures of a run's parts, prediction of any list, mistakes in one sentence."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluating import LABELS, NUM_PAIRS, NUM_VAL, save_run, write_pair

from evaluation.predict.loaded_run import load_run
from evaluation.predict.members import Members
from modeling.errors import InputError
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")

BAD_LIST = ["p3,positive", "../x,null", "p3,neutral", "nothing,null", "half,null", "p4,unheard", "p5"]


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def expect_error(capsys: pytest.CaptureFixture[str], main: Callable[..., None], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(*arguments)
    assert exit_info.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.count("error:") == 1
    assert "Traceback" not in stderr
    return stderr


def test_main_scores_the_parts_of_the_split(
    tiny_run: RunFolder, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for split, num_rows in (("val", NUM_VAL), ("train", NUM_PAIRS - NUM_VAL), ("all", NUM_PAIRS)):
        evaluate_main(tiny_run.path, "--split", split)
        saved = json.loads(tiny_run.evaluation_file(split).read_text())
        assert saved["num_rows"] == num_rows
        assert f"{num_rows} rows" in capsys.readouterr().out


def test_main_writes_and_prints_the_ablation(
    tiny_run: RunFolder, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_main(tiny_run.path, "--ablation")
    saved = json.loads((tiny_run.path / "ablation.json").read_text())
    assert list(saved["inputs"]) == ["full", "text_only", "image_only"]
    assert saved["ablation_input"] == "mask"
    assert all("macro_f1_interval" in metrics for metrics in saved["inputs"].values())
    evaluate_main(tiny_run.path)
    assert saved["inputs"]["full"]["accuracy"] == json.loads(tiny_run.evaluation_file("val").read_text())["accuracy"]
    assert "image_only" in capsys.readouterr().out


@pytest.mark.parametrize("header", [True, False])
def test_prediction_answers_every_row_in_order(
    tiny_run: RunFolder,
    tiny_pairs: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    header: bool,
) -> None:
    (tiny_pairs / "data" / "half.txt").write_text("a happy day without a picture")
    source, output = tmp_path / "list.txt", tmp_path / "new" / "folder" / "tags.txt"
    source.write_text("\r\n".join([*(["guid,tag"] if header else []), *BAD_LIST]) + "\r\n\r\n")
    evaluate_main(tiny_run.path, "--predict", source, "--output", output)
    lines = output.read_text().splitlines()
    assert lines[: int(header)] == ["guid,tag"][: int(header)]
    rows = [line.split(",") for line in lines[int(header) :]]
    assert [guid for guid, _ in rows] == ["p3", "../x", "p3", "nothing", "half", "p4", "p5"]
    assert {tag for _, tag in rows} <= set(LABELS)
    assert rows[0] == rows[2]

    probabilities = read_rows(output.with_name("tags.probabilities.csv"))
    assert probabilities[0] == ["guid", "prediction", *(f"prob_{label}" for label in LABELS)]
    assert [row[:2] for row in probabilities[1:]] == rows
    assert probabilities[2][2:] == probabilities[4][2:]  # nothing is known of either
    quarantine = read_rows(output.with_name("tags.quarantine.csv"))
    assert {"invalid_guid", "duplicate_guid", "missing_image", "unknown_label"} <= {row[2] for row in quarantine}
    metrics = json.loads(output.with_name("tags.metrics.json").read_text())
    assert metrics["num_rows"] == 2
    assert "7 predictions are in" in capsys.readouterr().out


def test_prediction_leaves_no_files_of_an_earlier_one(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None]
) -> None:
    source, output = tmp_path / "list.txt", tmp_path / "tags.txt"
    source.write_text("p1,null\n../x,positive\n")
    evaluate_main(tiny_run.path, "--predict", source, "--output", output)
    assert output.with_name("tags.quarantine.csv").exists()
    source.write_text("p1,null\np2,null\n")
    evaluate_main(tiny_run.path, "--predict", source, "--output", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "tags.probabilities.csv", "tags.txt"]


def test_prediction_reads_pairs_beside_the_list_unless_told_otherwise(
    tiny_run: RunFolder, tiny_pairs: Path, tmp_path: Path, evaluate_main: Callable[..., None]
) -> None:
    (tmp_path / "data").mkdir()
    write_pair(tmp_path / "data", "new", random.Random(1))
    source = tmp_path / "list.txt"
    source.write_text("new,null\np1,null\n")
    faulty = {}
    for name, options in {"beside": [], "told": ["--data_dir", tiny_pairs]}.items():
        evaluate_main(tiny_run.path, "--predict", source, "--output", tmp_path / f"{name}.txt", *options)
        faulty[name] = {row[1] for row in read_rows(tmp_path / f"{name}.quarantine.csv")[1:]}
    assert faulty == {"beside": {"p1"}, "told": {"new"}}


def test_mistakes_end_with_one_sentence_and_code_2(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "list.txt"
    source.write_text("p1,null\n")
    predict = [tiny_run.path, "--predict", source]
    assert "not a folder" in expect_error(capsys, evaluate_main, tmp_path / "nowhere")
    assert "no config.yaml" in expect_error(capsys, evaluate_main, tmp_path)
    assert "without --output" in expect_error(capsys, evaluate_main, *predict)
    assert "would overwrite" in expect_error(capsys, evaluate_main, *predict, "--output", source)
    assert "not a plain file" in expect_error(capsys, evaluate_main, *predict, "--output", tmp_path)
    assert "not a plain file" in expect_error(capsys, evaluate_main, *predict, "--output", os.devnull)
    missing = [tiny_run.path, "--predict", tmp_path / "no.txt", "--output", tmp_path / "x"]
    assert "not a file" in expect_error(capsys, evaluate_main, *missing)
    elsewhere = ["--output", tmp_path / "x", "--data_dir", tmp_path]
    assert "pass --data_dir" in expect_error(capsys, evaluate_main, *predict, *elsewhere)
    assert "cannot do fp16" in expect_error(capsys, evaluate_main, tiny_run.path, "--mixed_precision", "fp16")
    assert source.read_text() == "p1,null\n"


def test_damaged_model_folder_is_named(
    tiny_pairs: Path, tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", tiny_pairs)
    (run.model_dir / "model.safetensors").unlink()
    assert "incomplete or damaged" in expect_error(capsys, evaluate_main, run.path)


def test_changed_data_are_noticed(
    tiny_pairs: Path, tmp_path: Path, evaluate_main: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    run = save_run(tmp_path / "run", tiny_pairs)
    evaluate_main(run.path)
    assert "another hash" not in caplog.text
    other = tmp_path / "moved"
    (other / "data").mkdir(parents=True)
    for path in tiny_pairs.rglob("*.*"):
        (other / path.relative_to(tiny_pairs)).write_bytes(path.read_bytes())
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" not in caplog.text
    (other / "data" / "p1.txt").write_text("changed")
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" in caplog.text


def test_models_of_one_run_speak_of_its_data_once(
    tiny_pairs: Path, tmp_path: Path, fresh_state: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    for path in tiny_pairs.rglob("*.*"):
        (tmp_path / path.relative_to(tiny_pairs)).write_bytes(path.read_bytes())
    save_run(tmp_path / "run", tiny_pairs)
    run = load_run(tmp_path / "run", data_dir=str(tmp_path))
    for ending in ("txt", "jpg"):
        (tmp_path / "data" / f"p2.{ending}").unlink()
    parts = Members(run.folder, (run, run, run), is_cross_validated=True).load_rows("val")
    assert [len(rows) for _, rows in parts] == [NUM_VAL - 1] * 3
    assert caplog.text.count("another hash") == 1
    assert caplog.text.count("1 rows of the run's split can't be used now") == 1
    assert "first 'p2' in row 4 (no p2.txt)" in caplog.text
    assert "quarantine.csv" not in caplog.text


def test_part_without_a_usable_row_is_named(tiny_pairs: Path, tmp_path: Path, fresh_state: None) -> None:
    (tmp_path / "data").mkdir()
    write_pair(tmp_path / "data", "p1", random.Random(1))
    (tmp_path / "train.txt").write_bytes((tiny_pairs / "train.txt").read_bytes())
    save_run(tmp_path / "run", tiny_pairs)
    run = load_run(tmp_path / "run", data_dir=str(tmp_path))
    assert len(run.load_split_rows("all")) == 1
    with pytest.raises(InputError, match=rf"None of the {NUM_PAIRS - NUM_VAL} train rows .* missing_text"):
        run.load_split_rows("train")
    with pytest.raises(InputError, match="no test rows: its split"):
        run.load_split_rows("test")
