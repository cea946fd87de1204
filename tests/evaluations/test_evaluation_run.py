"""evaluate.py from the command line: figures of a run's parts, mistakes in one sentence, changed data."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluating import NUM_PAIRS, NUM_VAL, read_rows, save_run, write_pair

from evaluation.predict.ensemble import Ensemble
from evaluation.predict.loaded_run import load_run
from modeling.errors import InputError
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")


def test_main_scores_the_parts_of_the_split(
    tiny_run: RunFolder, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for split, num_rows in (("val", NUM_VAL), ("train", NUM_PAIRS - NUM_VAL), ("all", NUM_PAIRS)):
        evaluate_main(tiny_run.path, "--split", split)
        saved = json.loads((tiny_run.path / f"evaluation_{split}.json").read_text())
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
    assert (
        saved["inputs"]["full"]["accuracy"]
        == json.loads((tiny_run.path / "evaluation_val.json").read_text())["accuracy"]
    )
    assert "image_only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "file", "key"),
    [("--contributions", "contributions_val.json", "overall"), ("--robustness", "robustness.json", "conditions")],
)
def test_main_writes_what_else_is_asked_for(
    tiny_run: RunFolder, evaluate_main: Callable[..., None], flag: str, file: str, key: str
) -> None:
    evaluate_main(tiny_run.path, flag)
    saved = json.loads((tiny_run.path / file).read_text())
    assert (saved["split"], saved["mixed_precision"]) == ("val", "no")
    assert key in saved
    assert len(read_rows(tiny_run.path / file.replace("json", "csv"))) > 30


def test_mistakes_end_with_one_sentence_and_code_2(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], refusal: Callable[..., str]
) -> None:
    source = tmp_path / "list.txt"
    source.write_text("p1,null\n")
    predict = [tiny_run.path, "--predict", source]
    assert "not a folder" in refusal(evaluate_main, tmp_path / "nowhere")
    assert "no config.yaml" in refusal(evaluate_main, tmp_path)
    assert "would overwrite" in refusal(evaluate_main, *predict, "--output", source)
    assert "not a plain file" in refusal(evaluate_main, *predict, "--output", tmp_path)
    assert "not a plain file" in refusal(evaluate_main, *predict, "--output", os.devnull)
    missing = [tiny_run.path, "--predict", tmp_path / "no.txt", "--output", tmp_path / "x"]
    assert "not a file" in refusal(evaluate_main, *missing)
    elsewhere = ["--output", tmp_path / "x", "--data_dir", tmp_path]
    assert "pass --data_dir" in refusal(evaluate_main, *predict, *elsewhere)
    assert "cannot do fp16" in refusal(evaluate_main, tiny_run.path, "--mixed_precision", "fp16")
    assert source.read_text() == "p1,null\n"


def test_changed_data_are_noticed(
    tiny_pairs: Path, tmp_path: Path, evaluate_main: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    run = save_run(tmp_path / "run", tiny_pairs)
    evaluate_main(run.path)
    assert "another hash" not in caplog.text
    other = tmp_path / "moved"
    shutil.copytree(tiny_pairs, other)
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" not in caplog.text
    (other / "data" / "p1.txt").write_text("changed")
    evaluate_main(run.path, "--data_dir", other)
    assert "another hash" in caplog.text


def test_models_of_one_run_speak_of_its_data_once(
    tiny_pairs: Path, tmp_path: Path, fresh_state: None, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_pairs, tmp_path, dirs_exist_ok=True)
    save_run(tmp_path / "run", tiny_pairs)
    run = load_run(tmp_path / "run", data_dir=str(tmp_path))
    for ending in ("txt", "jpg"):
        (tmp_path / "data" / f"p2.{ending}").unlink()
    parts = Ensemble(run.folder, (run, run, run)).load_rows("val")
    assert [len(rows) for _, rows in parts] == [NUM_VAL - 1] * 3
    assert caplog.text.count("another hash") == 1
    assert caplog.text.count("1 rows of the run's split can't be used now") == 1
    assert "first 'p2' in row 4 (no p2.txt)" in caplog.text
    assert "quarantine.csv" not in caplog.text


def test_cache_that_the_run_alone_names_is_told_once(
    tiny_run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")  # which names the cache of the one that it was copied from
    with caplog.at_level(logging.INFO, logger="evaluation"):
        load_run(tiny_run.path)
        load_run(tmp_path / "run", cache_dir=str(tmp_path / "cache"))
        assert "--cache_dir" not in caplog.text
        for _ in range(2):
            load_run(tmp_path / "run")
    assert caplog.text.count(f"add --cache_dir {(tiny_run.path / 'cache').resolve()}.") == 1


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
