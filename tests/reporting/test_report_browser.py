"""The report in Chromium: it sorts and narrows down, asks for nothing, runs nothing of the data, is fit for all."""

from __future__ import annotations

import os
import shutil

import pytest
from accelerate.state import AcceleratorState
from reporting.hostile_runs import save_hostile_run

from evaluation.arguments import parse_arguments
from evaluation.report.session import run_report

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run with hostile data."""
    run = save_hostile_run(tmp_path_factory.mktemp("hostile"))
    AcceleratorState._reset_state(reset_partial_state=True)
    run_report(parse_arguments([str(run.path), "--report", "--cache_dir", str(run.path / "cache")]))
    AcceleratorState._reset_state(reset_partial_state=True)
    return run.report_file


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, report):
    """Open the report in a window; nothing may be asked for, and nothing may be said on the console."""
    opened, asked, told = [], [], []

    def run(width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(120_000)  # milliseconds: the tests beside it may have the processor
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(report.as_uri())
        opened.append(page)
        return page

    yield run
    assert [page.evaluate("window.hurt") for page in opened] == [None] * len(opened)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()] * len(opened)
    assert told == []
    for page in opened:
        page.close()


def test_rows_are_narrowed_down_by_words_and_class_and_sorted(open_page):
    page = open_page()
    shown, rows = page.locator("#row-list > article:visible"), page.locator("#row-list > article")
    total = rows.count()
    controls = page.locator("[data-controls=row-list]")

    controls.get_by_label("Search").fill("javascript:")
    assert 0 < shown.count() < total
    assert f"{shown.count()} of {total}" in controls.locator("output").inner_text()
    controls.get_by_label("Search").fill("")
    controls.get_by_label("Label").select_option("neutral")
    assert 0 < shown.count() < total
    assert {each.get_attribute("data-category") for each in shown.all()} == {"neutral"}
    controls.get_by_label("Label").select_option("")
    controls.get_by_label("Order").select_option("conflict")
    values = [float(each.get_attribute("data-conflict")) for each in rows.all()]
    assert values == sorted(values, reverse=True)


def test_a_table_is_sorted_by_the_keyboard(open_page):
    page = open_page()
    head = page.locator("#class-table th", has_text="F1")

    for key, order, reverse in (("Enter", "descending", True), ("Space", "ascending", False)):
        head.locator("button").focus()
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == order
        values = page.eval_on_selector_all(
            "#class-table tbody td:last-child", "cells => cells.map(c => +c.dataset.value)"
        )
        assert values == sorted(values, reverse=reverse)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(open_page, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(width, scheme)

    found = axe.Axe().run(page).response["violations"]

    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_its_script_the_page_still_shows_all(browser, report):
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())

    assert not page.locator("[data-controls=row-list]").is_visible()
    assert page.locator("#row-list > article:visible").count() == page.locator("#row-list > article").count() > 20
    page.close()
