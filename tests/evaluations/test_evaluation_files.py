"""Files and tables of an evaluation, the run folder, and the command line."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from evaluating import read_rows

from evaluation.arguments import parse_arguments
from evaluation.tasks.ablation import format_ablation, summarise_ablation
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import write_bad_cases
from run_files.run_folder import RunFolder

NAMES = ["negative", "positive"]
GUIDS = ["a", "b,c", "007"]
LABELS = [0, 1, -100]
PROBABILITIES = np.array([[0.75, 0.25], [0.6, 0.4], [0.1, 0.9]])


def test_bad_cases_hold_misjudged_labelled_rows_only(tmp_path: Path) -> None:
    write_bad_cases(tmp_path / "bad.csv", GUIDS, LABELS, np.argmax(PROBABILITIES, axis=1), NAMES)
    assert read_rows(tmp_path / "bad.csv") == [["guid", "label", "prediction"], ["b,c", "positive", "negative"]]


def test_failed_writing_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"accuracy": float("nan")})

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(InputError, match="No space left"):
            write_json(path, {"accuracy": 0.6})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_ablation_text_says_which_inputs_are_no_better_than_a_constant() -> None:
    right, constant = np.eye(2)[[0, 1, 1]], np.eye(2)[[1, 1, 1]]
    probabilities = {"full": right, "text_only": right, "image_only": constant}
    result = summarise_ablation(probabilities, [0, 1, 1], NAMES, ablation_input="mask")
    assert result["remarks"] == ["The image_only input (0.667) does not beat always answering positive (0.667)."]
    assert result["inputs"]["text_only"]["accuracy"] == 1
    text = format_ablation(result, title="validation")
    assert result["remarks"][0] in text
    assert "always positive" in text


class Choice(Enum):
    STEPS = "steps"


def test_arguments_survive_the_run_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    values = {
        "path": Path("x"),
        "choice": Choice.STEPS,
        "rate": np.float64(0.5),
        "sizes": (1, 2),
        "none": None,
        "on": True,
    }
    run.save_arguments({"model": values, "data": {"labels": ["yes", "null"]}, "training": {}, "environment": {}})
    loaded = run.load_arguments()
    expected = {"path": "x", "choice": "steps", "rate": 0.5, "sizes": [1, 2], "none": None, "on": True}
    assert loaded["model"] == expected
    assert loaded["data"]["labels"] == ["yes", "null"]


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.save_arguments({"model": {}, "data": {}, "training": {}, "environment": {}})
    with pytest.raises(InputError, match=r"no model/config\.json"):
        RunFolder.open(tmp_path)
    run.model_dir.mkdir()
    (run.model_dir / "config.json").write_text("{}")
    assert RunFolder.open(tmp_path).path == tmp_path


@pytest.mark.parametrize(("section", "remedy"), [("sweep", "trials/NNNN.json"), ("baselines", "metrics.json")])
def test_folder_that_never_has_a_model_is_not_to_be_resumed(tmp_path: Path, section: str, remedy: str) -> None:
    RunFolder(tmp_path).save_arguments({"model": {}, "data": {}, "training": {}, "environment": {}, section: {}})
    with pytest.raises(InputError, match=f"folder of (a )?{section}.*{remedy}") as error:
        RunFolder.open(tmp_path)
    assert "resume" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RUN"),
        (["run", "--split", "dev"], "invalid choice: 'dev'"),
        (["run", "--predict", "list.txt"], "without --output"),
        (["run", "--output", "out.txt"], "without --predict"),
        (["run", "--predict", "a", "--output", "b", "--ablation"], "once for each"),
        (["run", "--predict", "a", "--output", "."], "'.', which names no file"),
        (["run", "--predict", "a", "--output", ""], "'', which names no file"),
        (["run", "--predict", "a", "--output", "new/"], "'new/', which names no file"),
        (["run", "--ablation_input", "blank"], "--ablation_input without --ablation or --contributions"),
        (["--ablation", "run", "--robustness"], "--ablation and --robustness; leave one out"),
        (["run", "--abstain", "0.9", "--ablation"], "--abstain, which goes with plain scoring"),
        (["run", "--streaming"], "without --predict SHARDS"),
        (["run", "--per_device_eval_batch_size", "0"], "1 or more"),
        (["run", "--mixed_precision", "fp8"], "invalid choice"),
    ],
)
def test_command_line_mistakes_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_arguments(arguments)
