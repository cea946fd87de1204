"""evaluate.py --report: one page of a run, whatever lies in its texts, pictures and files."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from datasets import Dataset
from evaluating import NUM_VAL
from reporting.hostile_runs import PAYLOADS, draw_text, save_hostile_run

from evaluation.arguments import parse_arguments
from evaluation.report.judged import Judged
from evaluation.report.rows import ShownRows
from evaluation.report.session import run_report
from evaluation.report.slices import compare_slices
from evaluation.report.writing import report_at_end, write_report
from run_files.predictions_csv import PredictionTable
from run_files.run_folder import RunFolder


def write(run, *words):
    """evaluate.py RUN --report; the page's text."""
    AcceleratorState._reset_state(reset_partial_state=True)
    run_report(parse_arguments([str(run.path), "--report", "--cache_dir", str(run.path / "cache"), *words]))
    AcceleratorState._reset_state(reset_partial_state=True)
    return run.report_file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with hostile data, and its report."""
    run = save_hostile_run(tmp_path_factory.mktemp("hostile"))
    write(run)
    return run


@pytest.fixture(scope="module")
def page(run):
    return run.report_file.read_text(encoding="utf-8")


def test_the_page_has_all_sections_and_stays_small(page):
    ids = re.findall(r'<section id="([\w-]+)"', page)

    wanted = {"summary", "curves", "confusions", "classes", "calibration", "modalities", "rows", "slices"}
    assert wanted | {"check-problems", "faults", "origin"} <= {*ids}
    assert len(ids) == len({*ids})
    assert len(page.encode()) < 2_000_000


class Elements(HTMLParser):
    """The elements of a page, as a browser has them."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_nothing_of_the_data_is_markup_and_nothing_is_fetched(page):
    found = Elements(page).found
    names = [tag for tag, _ in found]
    attributes = [each for _, of_one in found for each in of_one.items()]

    assert [names.count(name) for name in ("script", "style")] == [1, 1]
    assert not {"iframe", "object", "embed", "link", "base", "form"} & {*names}
    assert [name for name, _ in attributes if name.startswith("on") or name == "style"] == []
    assert {value[:23] for name, value in attributes if name == "src"} == {"data:image/webp;base64,"}
    assert [value for name, value in attributes if name == "href" and not value.startswith("#")] == []
    assert not set("\x00\x07\x1b\u202e\u2066") & set(page)
    assert "7 * 7" in page


def test_a_second_report_asks_the_models_nothing_and_is_the_same(run, page, monkeypatch):
    def ask(*_):
        raise AssertionError

    monkeypatch.setattr("evaluation.report.session.ask_rows", ask)
    again = write(run)

    assert strip_seconds(again) == strip_seconds(page)


def strip_seconds(page):
    return re.sub(r"[\d.]+ s\b", "", page)


def test_neighbours_are_training_rows(run):
    found = json.loads((run.path / "neighbours_val.json").read_text())["guid"]
    train = {*json.loads(run.split_file.read_text())["train"]}

    assert len(found) == NUM_VAL
    assert {guid for near in found.values() for guid in near} <= train
    assert all(len(near) == 3 for near in found.values())


def test_a_damaged_file_is_one_sentence(run, tmp_path, refusal, evaluate_main):
    content = run.history_file.read_bytes()
    run.history_file.write_text('[{"loss": "high"}]')
    try:
        assert "history.json" in refusal(evaluate_main, run.path, "--report", "--cache_dir", run.path / "cache")
    finally:
        run.history_file.write_bytes(content)


def test_a_report_that_fails_does_not_lose_the_run(tmp_path, caplog):
    report_at_end(tmp_path / "absent", None)

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "\n" not in record.getMessage()


def test_a_thousand_hostile_rows_break_nothing(run, tmp_path):
    rng, count = random.Random(0), 1000
    guids = tuple(f"{number}{rng.choice(PAYLOADS)[:40]}" for number in range(count))
    generator = np.random.default_rng(0)
    names = ("<b>", "{{ x }}", '"><img src=x>')
    table = PredictionTable(guids, generator.integers(0, 3, count), generator.dirichlet(np.ones(3), count), names)
    images = [None if number % 9 == 0 else generator.bytes(3 * 16 * 16) for number in range(count)]
    rows = Dataset.from_dict({"guid": guids, "text": [draw_text(rng) for _ in guids], "image": images})
    folder = RunFolder(tmp_path)
    folder.config_file.write_bytes(run.config_file.read_bytes())
    judged = Judged(folder, "val", table)

    write_report(judged, ShownRows(judged, rows, 16, None), most=2000)

    page = folder.report_file.read_text(encoding="utf-8")
    assert page.count("<article") > 600
    test_nothing_of_the_data_is_markup_and_nothing_is_fetched(page)
    assert len(page.encode()) < 5_000_000


def test_slices_are_told_apart_only_where_rows_tell():
    rng = np.random.default_rng(0)
    texts = ["see https://a.example #x" if row % 3 == 0 else "plain words here" for row in range(600)]
    scores = (rng.random(600) < np.where(np.arange(600) % 3 == 0, 0.4, 0.8)).astype(float)
    found = {each.title: each for each in compare_slices(scores, texts, {}, is_share=True)}
    chance = compare_slices((rng.random(600) < 0.7).astype(float), texts, {}, is_share=True)

    assert found["text with a URL"].differs
    assert found["text with a URL"].inside.value < found["text with a URL"].outside.value
    assert not any(each.differs for each in chance)
