"""A model's folder answers without this project, by transformers alone, as evaluate.py does."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alone import ask
from conftest import draw_photo, read_csv
from tiny import ARCHITECTURES, TOKENIZER, save_clip, save_encoders, tiny_arguments, tiny_plan

from data_utils.sources.arguments import DataArguments
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.pipeline import save_alone
from modeling.processor import SentimentProcessor
from run_files.run_folder import RunFolder
from training.build.build import build_model

pytestmark = pytest.mark.usefixtures("fresh_state")
LABELS = {"single_label": ["negative", "neutral", "positive"], "multi_label": ["a", "b", "c"], "regression": ["value"]}
SETTINGS = {
    "single_label": {"temperature": 1.7},
    "multi_label": {"thresholds": [0.3, 0.55, 0.5]},
    "regression": {"label_mean": 3.0, "label_std": 2.0},
}
# `make test` has each head and each architecture, the slow tests have all of them.
QUICK = [(ARCHITECTURES[number % 3], fusion) for number, fusion in enumerate(FUSIONS)]
OTHERS = [cell for cell in itertools.product(ARCHITECTURES, FUSIONS) if cell not in QUICK]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Rows as they may come: in several columns, without a text or a picture or both, with several pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        draw_photo(number, size=(48 + 9 * number, 36)).save(folder / f"{number}.jpg")
    draw_photo(5, size=(500, 400)).convert("RGBA").save(folder / "large.png")
    draw_photo(6, size=(1600, 1200)).save(folder / "large.jpg", quality=80)  # decoded at a half
    picture = {name: str(folder / name) for name in ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "large.png", "large.jpg")}
    return [
        {"title": "a good day", "body": "", "photo": [picture["0.jpg"]]},
        {"title": "a bad day", "body": "some plain words " * 9, "photo": [picture["large.jpg"]]},
        {"title": "@somebody a day http://a.b/c", "body": "plain\n words", "photo": [picture["large.png"]]},
        {"title": "a good day", "body": "bad", "photo": None},
        {"title": None, "body": None, "photo": [picture["1.jpg"]]},
        {"title": "https://a.b @me", "body": None, "photo": [picture["3.jpg"]]},
        {"title": "words", "body": None, "photo": [picture["1.jpg"], picture["2.jpg"]]},
        {"title": None, "body": None, "photo": None},
        {"title": "day", "body": "good", "photo": [picture["3.jpg"], picture["0.jpg"], picture["2.jpg"]]},
    ]


def to_given(row: dict[str, Any]) -> dict[str, Any]:
    """The row as a pipeline takes it; what is missing is None, or isn't there."""
    pictures = row["photo"]
    found = {
        "text": [row["title"], row["body"]],
        "image": pictures[0] if pictures is not None and len(pictures) == 1 else pictures,
    }
    return {name: value for name, value in found.items() if name == "text" or value is not None}


def save_run(path: Path, rows: list[dict[str, Any]], architecture: str, fusion: str, task: str) -> RunFolder:
    """The run folder of a tiny model, made to tell rows apart."""
    arguments = tiny_arguments(architecture, fusion)
    torch.manual_seed(0)
    names = LABELS[task]
    model = build_model(
        tiny_plan(arguments), arguments, tokenizer=TOKENIZER, labels=names, text_cleaning="report", task=task
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    for name, value in SETTINGS[task].items():
        setattr(model.config, name, value)
    run, table = RunFolder(path), path.parent / "rows.jsonl"
    model.save_pretrained(run.model_dir)
    save_alone(run.model_dir, SentimentClassifier, SentimentProcessor.from_config(model.config, TOKENIZER))
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataArguments(
        data=[str(table)],
        text_column=["title", "body"],
        image_column="photo",
        cache_dir=str(path / "cache"),
        preprocessing_num_workers=1,
        labels=names,
        task=task,
    )
    run.save_arguments({"model": {}, "data": asdict(data), "training": {}, "environment": {}})
    return run


def check_answers(said: dict[str, Any], predictions: Path, task: str) -> None:
    """What a process without the project said is what evaluate.py wrote, to 1e-6."""
    written = read_csv(predictions.with_name("out.probabilities.csv"))
    names = ["prediction"] if task == "regression" else [f"prob_{name}" for name in said["labels"]]
    expected = np.array([[float(row[name]) for name in names] for row in written])
    assert np.ptp(expected, axis=0).min() > 1e-3  # or all rows might be answered alike
    limit = 1e-6 * max(1, np.abs(expected).max())  # float32 has so many digits of a number
    np.testing.assert_allclose(said["model"], expected, atol=limit)
    for answers in (said["single"], said["batches"]):
        if task == "regression":
            np.testing.assert_allclose(answers, expected[:, 0], atol=limit)
            continue
        scores = [{each["label"]: each["score"] for each in row} for row in answers]
        np.testing.assert_allclose([[row[name] for name in said["labels"]] for row in scores], expected, atol=1e-6)
        assert all(first["score"] >= second["score"] for row in answers for first, second in itertools.pairwise(row))
    if task == "single_label":
        assert [row[0]["label"] for row in said["answers"]] == [row["prediction"] for row in written]
    elif task == "multi_label":
        answers = [{each["label"] for each in row} for row in said["answers"]]
        assert answers == [set(filter(None, row["prediction"].split("|"))) for row in written]


def check_cells(cells, rows, tmp_path: Path, evaluate_main) -> None:
    """Each cell, an architecture, a head and a task, against evaluate.py."""
    runs = [save_run(tmp_path / "-".join(cell), rows, *cell) for cell in cells]
    for run in runs:
        words = ["--predict", tmp_path / "rows.jsonl", "--output", run.path / "out.csv", "--mixed_precision", "no"]
        evaluate_main(run.path, *words)
    said = ask([run.model_dir for run in runs], [to_given(row) for row in rows], tmp_path)
    assert len(said) == len(cells)
    for answers, run, (*_, task) in zip(said, runs, cells, strict=True):
        check_answers(answers, run.path / "out.csv", task)


def test_every_head_and_task_answers_alone_as_evaluate_does(rows, tmp_path, evaluate_main):
    cells = [(*cell, "single_label") for cell in QUICK]
    cells += [("clip", "early", "multi_label"), ("vilbert", "late", "regression")]
    check_cells(cells, rows, tmp_path, evaluate_main)


@pytest.mark.slow
def test_every_other_model_answers_alone_as_evaluate_does(rows, tmp_path, evaluate_main):
    cells = [(*cell, task) for cell in OTHERS for task in LABELS]
    check_cells(cells, rows, tmp_path, evaluate_main)


def test_trained_models_are_complete_and_name_no_path(run_train, photo, tmp_path):
    save_clip(tmp_path / "clip")
    save_encoders(tmp_path)
    towers = {
        "clip": ["--clip_name", str(tmp_path / "clip")],
        "vilbert": ["--text_name", str(tmp_path / "text"), "--vision_name", str(tmp_path / "vision")],
    }
    folders = [
        run_train("--model", architecture, *names, "--max_steps", "2", name=f"run-{architecture}")[0] / "model"
        for architecture, names in towers.items()
    ]
    for folder in folders:
        files = list(folder.iterdir())
        assert {"model.safetensors", "processor_config.json", "tokenizer.json", "pipeline.py"} <= {
            f.name for f in files
        }
        assert [file.name for file in files if str(tmp_path).encode() in file.read_bytes()] == []
        assert len({file.stat().st_mode for file in files}) == 1
    photo(1).save(tmp_path / "a.jpg")
    for said in ask(folders, [{"text": "a good day", "image": str(tmp_path / "a.jpg")}], tmp_path):
        assert {answer["label"] for answer in said["single"][0]} == {"negative", "neutral", "positive"}


@pytest.fixture(scope="module")
def processor() -> SentimentProcessor:
    picture = {"image_size": 16, "shortest_edge": 16, "resize_mode": "squash", "resample": 2}
    return SentimentProcessor(TOKENIZER, "tweet", 16, picture)


def test_one_row_or_a_list_of_rows_is_told_by_the_texts(processor, photo):
    picture = photo(1)
    one = processor(text="a day", images=[picture, photo(2)])
    assert one["pixel_values"].shape == (1, 2, 3, 16, 16)
    assert one["picture_mask"].tolist() == [[True, True]]
    two = processor(images=[picture, photo(2)], return_tensors="pt")
    assert (two["pixel_values"].shape, two["text_present"].tolist()) == ((2, 3, 16, 16), [False, False])
    rows = processor(text=["a day", None, ""], images=[None, picture, [picture]])
    assert rows["text_present"].tolist() == [True, False, False]
    assert rows["image_present"].tolist() == [False, True, True]
    assert processor(text=["a", "b"])["image_present"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": "http://a.b/c.jpg"}, "no picture is fetched"),
        ({"images": "nowhere.jpg"}, "'nowhere.jpg' can't be read: .*No such file"),
        ({"images": b"%PDF-1.4"}, "can't be decoded: a PDF document"),
        ({"images": 3}, "a picture that is a int"),
        ({"text": 3.0}, "3.0 as a text"),
        ({"text": ["a", "b"], "images": [None]}, "Got 2 texts and 1 pictures"),
        ({"text": ["a", "b"], "images": "a.jpg"}, "Got 2 texts and 1 pictures"),
        ({"text": "a", "return_tensors": "np"}, "allowed are pt"),
    ],
)
def test_what_is_no_row_is_refused(processor, given, words):
    with pytest.raises(InputError, match=words):
        processor(**given)
