"""`PairClassifier`: the same weights, answers and figures as the programs, from rows of every kind, in one process."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState, PartialState
from conftest import ONE_EPOCH, ROOT, TINY, read_csv
from datasets import ClassLabel, Dataset, Image, are_progress_bars_disabled
from evaluating import LABELS, write_pairs
from PIL import Image as Pillow

import train
from modeling.errors import InputError
from pair_classifier import PairClassifier

FLAGS = {
    **{"model": "clip", "fusion": "attn", "from_scratch": True, "text_config": TINY},
    **{"vision_config": TINY | {"patch_size": 16}, "image_size": 32, "max_length": 16, "max_steps": 2},
    **{"preprocessing_num_workers": 1, "learning_rate": 1e-3, "report_to": ["none"]},
}
FILES = ("split.json", "model/model.safetensors", "predictions_val.csv", "quarantine.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of pictures with rows.csv, which names them."""
    folder = write_pairs(tmp_path_factory.mktemp("python"))
    listed = [line.split(",") for line in (folder / "train.txt").read_text().splitlines()[1:]]
    rows = [
        {"id": guid, "text": (folder / "data" / f"{guid}.txt").read_text(), "image": f"data/{guid}.jpg", "label": label}
        for guid, label in listed
    ]
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def frame(folder):
    return pd.read_csv(folder / "rows.csv")


@pytest.fixture(scope="module")
def classifier(folder):
    """Factory of a classifier; other flags stand over `FLAGS`."""
    return lambda name="fitted", **flags: PairClassifier(
        **{**FLAGS, "cache_dir": folder / "cache", "output_dir": folder / name, **flags}
    )


@pytest.fixture(scope="module")
def fitted(folder, classifier):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return classifier().fit(pd.read_csv("rows.csv"))


@pytest.fixture(scope="module")
def trained(folder):
    """The run that train.py makes of rows.csv."""
    words = ["--data", str(folder / "rows.csv"), "--model", "clip", "--fusion", "attn", "--from_scratch"]
    words += ["--text_config", json.dumps(TINY), "--vision_config", json.dumps(TINY | {"patch_size": 16})]
    words += ["--image_size", "32", "--max_length", "16", "--preprocessing_num_workers", "1", *ONE_EPOCH]
    words += ["--max_steps", "2", "--cache_dir", str(folder / "cache"), "--output_dir", str(folder / "trained")]
    train.main(words)
    return folder / "trained"


def as_dicts(frame):
    return frame.to_dict("records")


def with_pillow(frame):
    """Of these small pictures no JPEG is decoded at a part of its size, as its file would be."""
    return frame.assign(image=[Pillow.open(path) for path in frame["image"]])


def as_dataset(frame):
    dataset = Dataset.from_pandas(frame).cast_column("image", Image())
    return dataset.cast_column("label", ClassLabel(names=LABELS)).select(range(len(frame)))


def with_bytes(frame):
    return frame.assign(image=[open(path, "rb").read() for path in frame["image"]]).convert_dtypes()


def with_categories(frame):
    return frame.astype({"label": "category"}).set_index(frame.index + 7)


KINDS = (as_dicts, with_pillow, as_dataset, with_bytes, with_categories, lambda _: "rows.csv")


def test_fit_gives_the_weights_of_train_py(fitted, trained):
    assert [name for name in FILES if (fitted.run_ / name).read_bytes() != (trained / name).read_bytes()] == []
    assert fitted.metrics_["val"]["accuracy"] == json.loads((trained / "metrics.json").read_text())["val"]["accuracy"]


@pytest.mark.parametrize("make", KINDS)
def test_rows_of_every_kind_get_the_same_answers(make, fitted, frame):
    assert np.array_equal(fitted.predict_proba(make(frame)), fitted.predict_proba(frame))


@pytest.mark.parametrize("make", [with_pillow, pytest.param(as_dataset, marks=pytest.mark.slow)])
def test_rows_of_every_kind_train_to_the_same_bits(make, fitted, frame, classifier):
    run = classifier(make.__name__).fit(make(frame)).run_
    assert [name for name in FILES if (run / name).read_bytes() != (fitted.run_ / name).read_bytes()] == []


def test_answers_and_figures_are_those_of_evaluate_py(fitted, frame, folder, evaluate_main):
    evaluate_main(fitted.run_, "--predict", "rows.csv", "--output", folder / "answers.csv")
    rows = read_csv(folder / "answers.probabilities.csv")
    clf = PairClassifier.load(fitted.run_, cache_dir=folder / "cache")
    assert clf.predict(frame).tolist() == [row["prediction"] for row in rows]
    assert clf.predict(frame, per_device_eval_batch_size=7).tolist() == clf.predict(frame).tolist()
    expected = [[float(row[f"prob_{name}"]) for name in LABELS] for row in rows]
    assert np.abs(clf.predict_proba(frame) - expected).max() <= 1e-6
    assert clf.evaluate(frame) == json.loads((folder / "answers.metrics.json").read_text())
    assert clf.score(frame) == clf.evaluate(frame)["accuracy"]
    for flags, name in (({}, "evaluation_val"), ({"ablation": True}, "ablation"), ({"split": "all"}, "evaluation_all")):
        words = [f"--{flag}" if value is True else f"--{flag}={value}" for flag, value in flags.items()]
        evaluate_main(fitted.run_, "--cache_dir", folder / "cache", *words)
        written = json.loads((fitted.run_ / f"{name}.json").read_text())
        assert clf.evaluate(**flags).items() <= written.items()
    assert clf.evaluate(frame, ablation=True)["inputs"]["full"] == clf.evaluate(frame)


def test_rows_that_can_not_be_used_are_answered_and_told(fitted, frame, caplog):
    frame.loc[1, ["text", "image"]] = [None, "gone.jpg"]
    assert len(fitted.predict(frame.drop(columns="label"))) == len(frame)
    assert "missing_image" in caplog.text


@pytest.mark.slow
def test_reasons_are_of_the_answers(fitted, frame):
    rows = frame.head(3)
    probabilities = fitted.predict_proba(rows)
    for reasons, values in zip(fitted.explain(rows), probabilities, strict=True):
        assert reasons.label == fitted.classes_[values.argmax()]
        assert reasons.probability == pytest.approx(values.max(), abs=1e-6)
        assert len(reasons.words) == len(reasons.text.split())


def test_folds_are_fitted_and_answer_together(frame, classifier):
    clf = classifier("folds", folds=2, max_steps=1).fit(frame)
    assert clf.predict_proba(frame).shape == (60, 3)
    assert clf.evaluate()["num_rows"] == 60


def test_several_labels(frame, classifier):
    frame["label"] = [[LABELS[number % 3], *LABELS[: number % 2]] for number in range(60)]
    clf = classifier("several", task="multi_label").fit(frame)
    answers = clf.predict(frame)
    assert clf.predict_proba(frame).shape == (60, 3)
    assert (len(answers), {name for answer in answers for name in answer} <= {*LABELS}) == (60, True)
    assert 0 <= clf.score(frame) <= 1


@pytest.mark.slow
def test_numbers(frame, classifier):
    frame["label"] = np.linspace(0, 5, 60)
    clf = classifier("numbers", task="regression").fit(frame)
    assert clf.predict(frame).shape == (60,)
    assert clf.score(frame) == -clf.evaluate(frame)["mae"] < 0
    with pytest.raises(InputError, match="no probabilities"):
        clf.predict_proba(frame)


def test_process_is_left_as_it_was_and_fits_again(frame, folder, trained, classifier):
    def look():
        return {
            "environment": dict(os.environ),
            "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
            "streams": [sys.stdout, sys.stderr, threading.excepthook],
            "logging": [*logging.root.handlers, logging.root.level, logging.getLogRecordFactory()],
            "accelerate": [dict(AcceleratorState._shared_state), dict(PartialState._shared_state)],
            "bars": are_progress_bars_disabled(),
        }

    before = look()
    clf = classifier("other", bf16=True, max_steps=1).fit(frame)
    clf.evaluate()
    assert look() == before

    run = classifier("other").fit(frame).run_  # as if nothing had been before it; the earlier run moves aside
    assert [name for name in FILES if (run / name).read_bytes() != (trained / name).read_bytes()] == []
    assert (folder / "other.old-1" / "model").is_dir()


def test_import_and_flags_take_no_heavy_library():
    code = (
        "import sys; from pair_classifier import PairClassifier; PairClassifier(model='clip', learning_rate=1e-4)\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'sklearn') if name in sys.modules])"
    )
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"modle": "clip"}, "--model"),
        ({"data": "rows.csv"}, "fit takes the rows"),
        ({"tune": "recipe.yaml"}, "for train.py"),
        ({"num_train_epochs": "many"}, "num_train_epochs"),
        ({"fusion": "attention"}, "attn"),
    ],
)
def test_wrong_flags_are_refused_at_once(flags, words):
    with pytest.raises(InputError, match=words):
        PairClassifier(**flags)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda frame: [], "no rows"),
        (lambda frame: frame[:0], "no rows"),
        (lambda frame: {"text": ["a"]}, "rows as dict"),
        (lambda frame: frame.rename(columns={"image": "text"}), "named 'text', as one before"),
        (lambda frame: frame.assign(text=[object()] * 60), "column 'text'"),
        (lambda frame: frame.assign(id=[uuid.uuid4() for _ in range(60)]), "column 'id'"),
        (lambda frame: frame.assign(picture="a.jpg"), "may be the image"),
        (lambda frame: frame.assign(label="one"), "at least two"),
        (lambda frame: frame.assign(image="gone.jpg"), "image"),
        (lambda frame: "gone.csv", "no such file"),
        (lambda frame: frame.assign(image=5.5), "image"),
    ],
)
def test_wrong_rows_are_one_sentence(make, words, frame, classifier):
    with pytest.raises(InputError, match=words) as refusal:
        classifier("refused").fit(make(frame))
    assert "\n" not in str(refusal.value)


def test_what_can_not_be_asked_is_refused(fitted, frame, monkeypatch):
    for ask, words in (
        (lambda: PairClassifier().predict(frame), "call fit"),
        (lambda: PairClassifier.load("gone"), "no folder|not a folder"),
        (lambda: fitted.predict(frame, output="a.csv"), "for evaluate.py"),
        (lambda: fitted.predict(frame, batch_size=3), "no flag of evaluate.py"),
        (lambda: fitted.predict(["rows.csv", "rows.csv"]), "one at a time"),
        (lambda: fitted.evaluate(frame, split="val"), "run's own rows"),
        (lambda: fitted.evaluate(frame.drop(columns="label")), "label"),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        fitted.predict(frame)
