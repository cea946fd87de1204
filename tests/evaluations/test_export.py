"""evaluate.py --export: graphs that answer as the run's model does, and run without the project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from evaluating import NUM_VAL, read_rows
from tiny import ARCHITECTURES, TOKENIZER, tiny_batch, tiny_model

from data_utils.sources.arguments import DataArguments
from evaluation.arguments import parse_arguments
from evaluation.export import checking, graphs
from evaluation.export.formats import export_run
from evaluation.predict.ensemble import Ensemble
from evaluation.predict.loaded_run import LoadedRun, load_run
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.pictures import PictureSettings
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")
ABSENT = "import sys\nfor name in ('torch', 'transformers', 'modeling'): sys.modules[name] = None\n"


def test_onnx_answers_as_the_run_does_without_torch_and_project(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate_main(tiny_run.path, "--export", "onnx", "--export_int8", "--per_device_eval_batch_size", 8)
    said = capfd.readouterr().err
    assert not re.search("warn|torchvision|pre-processing", said, re.IGNORECASE), said

    folder = tiny_run.path / "export" / "onnx"
    report = json.loads((folder / "export.json").read_text())
    assert {(each["input"], each["batch_size"]) for each in report["checks"]} == {
        (name, size) for name in ("full", "text_only", "image_only") for size in (1, 8)
    }
    assert all(each["logits"] < 1e-5 and each["same_answers"] == 1 for each in report["checks"])
    assert report["int8"]["num_rows"] == NUM_VAL
    assert 0 < report["int8"]["logits"] < 1
    assert abs(report["int8"]["int8"]["accuracy"] - report["int8"]["float32"]["accuracy"]) < 0.2
    assert report["bytes"]["model.int8.onnx"] < report["bytes"]["model.onnx"]
    assert not [path for path in folder.iterdir() if str(ROOT).encode() in path.read_bytes()]
    assert list(folder.parent.iterdir()) == [folder]

    answers = tmp_path / "answers.txt"
    data_dir = Path(load_run(tiny_run.path).data.data_dir)
    evaluate_main(tiny_run.path, "--predict", data_dir / "train.txt", "--output", answers)
    *_, last = read_rows(answers.with_name("answers.probabilities.csv"))
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[1]
    pair = data_dir / "data" / last[0]
    text = f"http://t.co/x {pair.with_suffix('.txt').read_text()}\n"
    names = ("runs/clip-attn/export/onnx", "What a day! http://t.co/x", "photo.jpg")
    for name, value in zip(names, (folder, text, pair.with_suffix(".jpg")), strict=True):
        example = example.replace(f'"{name}"', repr(str(value)))
    done = subprocess.run(  # -I: nothing of the folder it is started in, nor of PYTHONPATH
        [sys.executable, "-I", "-c", ABSENT + example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    given = json.loads(done.stdout.replace("'", '"'))
    np.testing.assert_allclose(list(given.values()), [float(each) for each in last[-3:]], atol=1e-5)


def test_torch_program_takes_the_place_of_an_earlier_export_only(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], refusal: Callable[..., str]
) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "export.json").write_text('{"bytes": {"earlier": 0}}')
    (folder / "earlier").touch()
    words = (tiny_run.path, "--export", "torch", "--split", "train", "--output", folder)
    evaluate_main(*words)
    assert {path.name for path in folder.iterdir()} == {
        *("export.json", "model.pt2", "preprocessing.json", "tokenizer.json")
    }
    assert json.loads((folder / "export.json").read_text())["split"] == "train"
    assert str(ROOT).encode() not in (folder / "model.pt2").read_bytes()
    batch = load_run(tiny_run.path).make_inputs(2, 5)
    assert set(torch.export.load(folder / "model.pt2").module()(**batch)) == {"logits", "probabilities"}

    (folder / "mine").touch()
    assert "mine is of no earlier export" in refusal(evaluate_main, *words)
    assert (folder / "mine").exists()
    assert "of no earlier export" in refusal(evaluate_main, *words[:-1], folder / "mine")


def test_graph_that_answers_otherwise_is_refused_and_not_left(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], refusal: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    words = (tiny_run.path, "--export", "torch", "--output", tmp_path / "program")
    assert "doesn't answer as that of" in refusal(evaluate_main, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--export_int8"],
        ["--export", "torch", "--export_int8"],
        ["--export", "onnx", "--ablation"],
        ["--export", "onnx", "--predict", "list.txt", "--output", "x"],
        ["--export", "onnx", "--mixed_precision", "bf16"],
        ["--export", "nonsense"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match=r"--export"):
        parse_arguments(["run", *words])


def test_missing_packages_are_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.arguments.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        parse_arguments(["run", "--export", "onnx"])
    assert parse_arguments(["run", "--export", "torch"]).export == "torch"


def test_several_models_and_links_are_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    run = load_run(tiny_run.path)
    arguments = parse_arguments([str(tiny_run.path), "--export", "torch", "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match="2 models"):
        export_run(Ensemble(tiny_run, (run, run)), arguments)
    linked = RunFolder(tmp_path / "run")
    linked.path.mkdir()
    (linked.path / "export").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link"):
        export_run(Ensemble(linked, (run,)), parse_arguments(["run", "--export", "torch"]))


def run_of(model: SentimentClassifier, folder: Path) -> LoadedRun:
    """A run as `load_run` gives it, of a model without data."""
    picture = PictureSettings(**model.config.picture)
    return LoadedRun(RunFolder(folder), model.config, TOKENIZER, picture, DataArguments(data_dir="."), {}, {})


def check_graph(model: SentimentClassifier, run: LoadedRun, answer: graphs.Answerer) -> None:
    for size, missing in ((1, None), (1, "text"), (5, "image"), (33, None)):
        batch = tiny_batch(size, seed=size)
        batch[f"{missing or 'text'}_present"][: size if missing else 0] = False
        batch = {name: batch[name] for name in graphs.list_inputs(run)}
        with torch.no_grad():
            expected = model(**batch).logits
            got = answer(**batch)
        torch.testing.assert_close(got["logits"], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(got["probabilities"], model.probabilities(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "fusion", "problem"),
    [
        ("baseline", "cross_attn", None),
        ("vilbert", "image_only", "multi_label_classification"),
        ("clip", "attn", "regression"),
    ],
)
def test_programs_answer_as_their_models_do(architecture: str, fusion: str, problem: str, tmp_path: Path) -> None:
    model = tiny_model(architecture, fusion).eval()
    model.config.problem_type, model.config.temperature = problem, 1.7
    model.config.label_mean, model.config.label_std = 2.0, 3.0
    run = run_of(model, tmp_path)
    check_graph(model, run, graphs.trace(run, model).module())


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_graphs_answer_as_their_models_do(architecture: str, fusion: str, tmp_path: Path) -> None:
    model = tiny_model(architecture, fusion).eval()
    run, program = run_of(model, tmp_path), graphs.trace(run_of(model, tmp_path), model)
    torch.export.save(program, tmp_path / "model.pt2")
    check_graph(model, run, torch.export.load(tmp_path / "model.pt2").module())
    graphs.save_onnx(run, program, tmp_path / "model.onnx")
    check_graph(model, run, graphs.open_onnx(tmp_path / "model.onnx"))
