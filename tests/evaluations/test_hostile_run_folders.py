"""Run folders that were damaged, or made to do harm: one sentence or an answer, and nothing is written elsewhere."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from evaluating import LABELS

from data_utils.system.files import remove
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")

WRONG = (None, [], {}, "x", "\x1b[2J\0", "", True, -1, 0, 10**7, 10**30, 0.5, float("nan"), [None], {"a": 1})
CONTENTS = (b"", b"[" * 100_000, b"{", b"\xff\xfe\0\0", b"null", b"[]", b"{}", b"a: &a [*a]", b"7" * 5000)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value, at any depth; of a list the first item stands for all."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The content with another value in a place; without it for ..."""
    content = copy.deepcopy(content)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return content


def dump(path: Path, content: Any) -> bytes:
    return (yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content, default=str)).encode()


class Folder:
    """A copy of a run, to be changed, evaluated and mended."""

    def __init__(self, run: RunFolder, main: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
        self.run, self.main, self.capsys = run, main, capsys

    def evaluate(self, what: str, *words: object) -> str:
        """What is said: one error, with exit code 2, or none."""
        return self._start(what, self.run.path, "--split", "train", *words)

    def compare(self, what: str, other: Path) -> str:
        """The same of a comparison with another run."""
        return self._start(what, "compare", self.run.path, other)

    def _start(self, what: str, *words: object) -> str:
        self.capsys.readouterr()
        code = 0
        try:
            self.main(*words)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        said = self.capsys.readouterr()
        shown = said.out + said.err
        assert "Traceback" not in shown, what
        assert all(character.isprintable() or character in "\n\t\r" for character in shown), (what, shown)
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) in ((0, 0), (2, 1)), (what, shown)
        assert "LOAD REPORT" not in shown, what  # transformers' table, beside our sentence
        return errors[0] if errors else ""

    def with_content(self, name: str, content: bytes, *words: object) -> str:
        path = self.run.path / name
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            return self.evaluate(f"{name}: {content[:300]!r}", *words)
        finally:
            path.write_bytes(before)


@pytest.fixture
def folder(
    tiny_run: RunFolder, tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> Folder:
    shutil.copytree(tiny_run.path, tmp_path / "run", symlinks=True)
    return Folder(RunFolder(tmp_path / "run"), evaluate_main, capsys)


VALUES = (..., date(2020, 1, 2), *WRONG)


@pytest.mark.parametrize("name", ["config.yaml", "split.json", "model/config.json", "model/tokenizer_config.json"])
def test_wrong_values_in_every_place(folder: Folder, name: str) -> None:
    path, draw = folder.run.path / name, random.Random(name)
    content = yaml.safe_load(path.read_bytes())
    for place in list(places(content)):
        folder.with_content(name, dump(path, changed(content, place, draw.choice(VALUES))))


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("config.yaml", ("data", "labels"), 5, ["labels: 5", "a list"]),
        ("config.yaml", ("data", "labels"), [date(2020, 1, 2), "b"], ["labels.0", "datetime.date", "a text"]),
        ("config.yaml", ("training", "modality_dropout"), {}, ["training.modality_dropout", "a map", "a number"]),
        ("config.yaml", ("data", "data_dir"), "a\0b", ["data_dir", "a text"]),
        ("config.yaml", ("environment",), [], ["environment", "a list", "a map"]),
        ("config.yaml", ("environment", "mixed_precision"), "fp4", ["mixed_precision", "'fp4'", "bf16"]),
        ("config.yaml", ("folds",), {"num_folds": 10**9, "seeds": [1]}, ["folds.num_folds", "1000000000", "10,000"]),
        ("split.json", ("train",), {"a": 1}, ["train", "a map", "a list"]),
        ("model/config.json", ("picture",), None, ["picture", "None", "a map"]),
        ("model/config.json", ("picture", "image_size"), 10**6, ["picture.image_size", "4,096"]),
        ("model/config.json", ("num_labels",), 10**9, ["num_labels", "1,000,000"]),
        ("model/config.json", ("vision_tower", "config", "hidden_size"), 8, ["don't fit its model"]),
        ("model/config.json", ("max_length",), 10**9, ["max_length", "32,768"]),
        ("model/config.json", ("temperature",), 0, ["temperature", "0.001"]),
        ("model/config.json", ("id2label",), {"0": "a", "2": "b"}, ["id2label", "numbers from 0"]),
        ("model/config.json", ("text_tower",), None, ["text_tower", "early"]),
        ("model/config.json", ("text_tower", "config", "num_hidden_layers"), 10**7, ["num_hidden_layers", "10000000"]),
        ("model/config.json", ("text_tower", "config", "hidden_size"), 10**9, ["memory"]),
        ("model/config.json", ("text_tower", "class_name"), "os", ["'os'", "transformers"]),
        ("model/config.json", ("vision_tower", "config", "num_attention_heads"), -1, ["damaged"]),
        ("model/tokenizer_config.json", ("pad_token",), "foreign", ["tokenizer", "text tower"]),
        ("model/tokenizer_config.json", ("pad_token",), None, ["tokenizer", "padding"]),
    ],
)
def test_wrong_value_is_named_with_what_belongs_there(
    folder: Folder, name: str, place: tuple[str, ...], value: Any, words: list[str]
) -> None:
    path = folder.run.path / name
    content = yaml.safe_load(path.read_bytes())
    error = folder.with_content(name, dump(path, changed(content, place, value)))
    assert all(word in error for word in words), error


NAMES = ("config.yaml", "split.json", "model/config.json", "model/tokenizer_config.json", "model/tokenizer.json")


@pytest.mark.parametrize("name", [*NAMES, "model/model.safetensors"])
def test_damaged_files(folder: Folder, name: str) -> None:
    content = (folder.run.path / name).read_bytes()
    for damaged in CONTENTS:
        assert folder.with_content(name, damaged), damaged[:80]
    for cut in (content[: len(content) // 2], content[:-3], content[3:]):  # which may be whole YAML
        folder.with_content(name, cut)


@pytest.mark.parametrize("name", [*NAMES, "model/model.safetensors", "model", "model/other.json"])
def test_other_things_in_the_place_of_files(folder: Folder, tmp_path: Path, name: str) -> None:
    path, sound = folder.run.path / name, tmp_path / "sound"
    if path.exists():
        path.rename(sound)
    things: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "link to a device": lambda: path.symlink_to("/dev/zero"),
        "link that leads nowhere": lambda: path.symlink_to(tmp_path / "nowhere"),
        "link to itself": lambda: path.symlink_to(path),
    }
    if sound.exists():
        things |= {"folder": path.mkdir, "nothing": lambda: None}
        things["huge file"] = lambda: (path.touch(), os.truncate(path, 2**38))  # it is not read
    for what, make in things.items():
        make()
        assert folder.evaluate(f"{what} for {name}"), what
        remove(path)
    if sound.exists():
        path.symlink_to(sound)  # reading through a link is fine
        assert not folder.evaluate(f"link for {name}")


def test_run_says_nowhere_else_to_write_or_delete(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    victim = tmp_path / "victim"
    (victim / "precious.building-1").mkdir(parents=True)
    (folder.run.path / "link").symlink_to(victim)
    content = yaml.safe_load(folder.run.config_file.read_bytes())
    for named in (victim, folder.run.path / "link", folder.run.path / ".." / "victim", "/", "~", "relative"):
        place = ("data", "cache_dir")
        assert not folder.with_content("config.yaml", dump(folder.run.config_file, changed(content, place, str(named))))
    assert [path.name for path in victim.iterdir()] == ["precious.building-1"]
    assert not Path("relative").exists()
    assert any((tmp_path / "home").rglob("*.arrow"))
    folder.evaluate("a folder of the user's", "--cache_dir", victim)
    assert any(victim.rglob("*.arrow"))


@pytest.mark.parametrize("name", ["metrics.json", "predictions_val.csv"])
def test_comparison_of_damaged_runs(folder: Folder, tmp_path: Path, name: str) -> None:
    probabilities = np.eye(3)[[0, 1, 2] * 8] * 0.7 + 0.1
    for run in (folder.run, RunFolder(tmp_path / "other")):
        guids = [str(number) for number in range(24)]
        write_predictions_csv(run.predictions_file, guids, [0, 1, 2] * 8, probabilities, LABELS)
    metrics = {"parameters": {"total": 5}, "training": {"seconds": 1.5}, "best": {"metric": "macro_f1"}}
    folder.run.metrics_file.write_text(json.dumps(metrics))
    path = folder.run.path / name
    content = path.read_bytes()
    wrong = [dump(path, changed(metrics, place, value)) for place in places(metrics) for value in VALUES]
    for damaged in (*CONTENTS, content[: len(content) // 2], *(wrong if name == "metrics.json" else ())):
        path.write_bytes(damaged)
        folder.compare(f"{name}: {damaged[:200]!r}", tmp_path / "other")
    remove(path)
    os.mkfifo(path)
    folder.compare(f"{name}: a pipe", tmp_path / "other")
