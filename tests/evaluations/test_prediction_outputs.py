"""Which files a prediction may take the place of: those of an earlier one, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluating import LABELS

from data_utils import shard
from evaluation.predict.loaded_run import load_run
from evaluation.tasks.output_files import OutputFiles
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")
PROBABILITIES = "guid,prediction,prob_a,prob_b\n1,a,0.9,0.1\n2,b,0.2,0.8\n"
TAGS = "1,a\n2,b\n"


def read_tree(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("streaming", [False, True])
def test_files_of_the_run_and_of_its_data_are_kept(
    tiny_run: RunFolder,
    tiny_pairs: Path,
    tmp_path: Path,
    evaluate_main: Callable[..., None],
    refusal: Callable[..., str],
    streaming: bool,
) -> None:
    write_predictions_csv(tiny_run.predictions_file, ["p1"], [0], np.eye(3)[:1], LABELS)
    write_json(tiny_run.metrics_file, {})
    words: list[object] = [tiny_run.path, "--predict"]
    if streaming:
        asked, shards = tmp_path / "pairs", tmp_path / "shards"
        asked.mkdir()
        (asked / "list.txt").write_text("p1,null\n")
        (asked / "data").symlink_to(tiny_pairs / "data")
        flags = ["--data_dir", str(asked), "--train_file", "list.txt", "--output_dir", str(shards), "--for_prediction"]
        assert shard.main(flags) == 0
        words += [shards, "--streaming"]
    else:
        (tmp_path / "list.txt").write_text("p1,null\n")
        words += [tmp_path / "list.txt", "--data_dir", tiny_pairs]
    before = read_tree(tiny_run.path, tiny_pairs)
    run_files = (tiny_run.config_file, tiny_run.split_file, tiny_run.predictions_file, tiny_run.model_dir / "a.txt")
    (tiny_run.model_dir / "a.txt").write_text("x,y\n")
    for output in (*run_files, tiny_pairs / "train.txt", tiny_pairs / "data" / "p1.txt"):
        assert "would overwrite" in refusal(evaluate_main, *words, "--output", output)
    (tiny_run.model_dir / "a.txt").unlink()
    assert read_tree(tiny_run.path, tiny_pairs) == before


@pytest.mark.parametrize("header", ["", "guid,tag\n", "id,label\n"])
def test_earlier_prediction_may_be_replaced(tmp_path: Path, header: str) -> None:
    (tmp_path / "p.txt").write_text(header + TAGS)
    (tmp_path / "p.probabilities.csv").write_text(PROBABILITIES)
    (tmp_path / "p.quarantine.csv").write_text("row,guid,reason,action,detail\n1,1,missing_text,masked,\n")
    write_json(tmp_path / "p.metrics.json", {"num_rows": 2, "majority_baseline": []})
    write_json(tmp_path / "p.contributions.json", {"overall": {}})
    OutputFiles(tmp_path / "p.txt").prepare([])
    with pytest.raises(InputError, match=r"would overwrite .*p\.txt"):
        OutputFiles(tmp_path / "p.txt").prepare([tmp_path / "p.txt"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "1,b\n2,b\n"),  # labels of the same rows, beside what was predicted for them
        ("p.txt", "1,a,x\n2,b,x\n"),
        ("p.txt", "1,a\n"),
        ("p.txt", b"\xff\xd8\xff\xe0"),
        ("p.probabilities.csv", "guid,label,prediction,prob_a,prob_b\n1,a,a,0.9,0.1\n"),
        ("p.probabilities.csv", "guid,prediction,prob_a,prob_b\n"),
        ("p.quarantine.csv", "guid,reason\n"),
        ("p.quarantine.csv", "row,guid,reason,action,detail,checked by\n1,1,missing_text,masked,,me\n"),
        ("p.metrics.json", '{"loss": 1}'),
        ("p.metrics.json", "notes"),
        ("p.metrics.json", '{\n  "num_rows": 9\n}\n'),
        ("p.contributions.json", "[1]"),
    ],
)
def test_foreign_file_is_named_and_kept(tmp_path: Path, name: str, content: str | bytes) -> None:
    (tmp_path / "p.txt").write_text(TAGS)
    (tmp_path / "p.probabilities.csv").write_text(PROBABILITIES)
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not of an earlier prediction"):
        OutputFiles(tmp_path / "p.txt").prepare([])
    assert (tmp_path / name).read_bytes() == content


def test_prediction_without_its_probabilities_is_not_known_as_one_but_an_empty_file_is_free(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("")
    OutputFiles(tmp_path / "p.txt").prepare([])
    (tmp_path / "p.txt").write_text(TAGS)
    with pytest.raises(InputError, match=r"p\.probabilities\.csv beside them"):
        OutputFiles(tmp_path / "p.txt").prepare([])


def test_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot write into"):
        OutputFiles(tmp_path / ("x" * 300)).prepare([])


def test_predicted_list_that_the_run_was_trained_on_is_kept(tiny_run: RunFolder, tmp_path: Path) -> None:
    """It looks like a prediction, and is the run's data all the same."""
    run = load_run(tiny_run.path)
    run = replace(run, data=replace(run.data, data_dir=str(tmp_path), train_file="p.txt"))
    (tmp_path / "p.txt").write_text(TAGS)
    (tmp_path / "p.probabilities.csv").write_text(PROBABILITIES)
    with pytest.raises(InputError, match="would overwrite"):
        OutputFiles(tmp_path / "p.txt").prepare(run.list_files())
