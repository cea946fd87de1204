"""The page as visitors have it: a server of its own process, its HTTP interface, and Chromium."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT, read_csv
from evaluating import save_run
from PIL import Image

pytest.importorskip("gradio", reason="the page needs gradio: pip install -r requirements-demo.txt")
import httpx

CHROMIUM = shutil.which("chromium")
LARGEST = 200_000  # bytes of an upload
FLAGS = ("--server_port", "0", "--max_upload_mb", str(LARGEST / 1e6), "--max_rows", "20")
META = {"meta": {"_type": "gradio.FileData"}}
# What would show that a text had run: another title.
HOSTILE = (
    "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\"> ${document.title = 'ran'} "
    "{{constructor.constructor('document.title=`ran`')()}} <svg onload=document.title='ran'> \u202egnp.exe \x1b[2J\0"
)
ADDRESS = re.compile(r"The page is at (\S+)/ until")
# Runs before the program: every connection that leaves the loopback is told on stderr.
WATCHED = """
import runpy, socket, sys
connect = socket.socket.connect
def watch(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        print("LEFT", address, file=sys.stderr, flush=True)
    return connect(self, address)
socket.socket.connect = watch
sys.argv = ["demo", *sys.argv[1:]]
runpy.run_module("demo", run_name="__main__", alter_sys=True)
"""


class Server:
    """The page's process."""

    def __init__(self, runs: list[Path], log: Path) -> None:
        self.runs, self.log = runs, log
        command = [sys.executable, "-c", WATCHED, *map(str, runs), *FLAGS]
        environment = os.environ | {
            "GRADIO_ALLOWED_PATHS": "/",
            "GRADIO_SHARE": "True",
            "HTTP_PROXY": "http://127.0.0.1:1",
        }
        with log.open("w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        end = time.monotonic() + 300
        while (found := ADDRESS.search(log.read_text())) is None:
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        self.client = httpx.Client(base_url=found[1], timeout=120)

    def upload(self, content: bytes, name: str = "a.jpg") -> str:
        """The path of what was uploaded."""
        answer = self.client.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def call(self, function: str, *values: object) -> object:
        """What a function of the HTTP interface gives, or the sentence that it refuses with."""
        content, kind = json.dumps({"data": values}), {"Content-Type": "application/json"}
        begun = self.client.post(f"/gradio_api/call/{function}", content=content, headers=kind)
        if begun.status_code != 200:
            return begun.text
        event = ""
        with self.client.stream("GET", f"/gradio_api/call/{function}/{begun.json()['event_id']}") as lines:
            for line in lines.iter_lines():
                name, _, value = line.partition(": ")
                event = value if name == "event" else event
                if name == "data" and event in ("complete", "error"):
                    found = json.loads(value)
                    return found[0] if event == "complete" else found["error"]
        raise AssertionError("the stream ended without an answer")

    def ask(self, text: str | None, picture: bytes | None = None, why: bool = False) -> object:
        """The runs' answers to a pair."""
        return self.call("answer", picture and {"path": self.upload(picture), **META}, text, why)

    def ask_file(self, content: bytes) -> object:
        """The answers to a CSV file."""
        return self.call("answer_file", {"path": self.upload(content, "a.csv"), **META}, None)

    def memory(self) -> int:
        """Bytes that the process holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def server(tiny_pairs, tiny_run, tmp_path_factory):
    """Two runs on a page; none of their process's connections leaves the machine, and it ends when it is told to."""
    folder = tmp_path_factory.mktemp("server")
    other = save_run(folder / "text_only", tiny_pairs, fusion="text_only")
    (other.path / "abstention.json").write_text(
        json.dumps({"wanted_accuracy": 0.8, "temperature": 1.0, "chosen": {"threshold": 0.99}})
    )
    server = Server([tiny_run.path, other.path], folder / "log")
    yield server
    server.client.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0, server.log.read_text()
    assert "LEFT" not in server.log.read_text()


@pytest.fixture(scope="module")
def picture(tiny_pairs):
    return (tiny_pairs / "data" / "p3.jpg").read_bytes()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives Chromium")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; Debian: apt install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """A fresh visitor, none of whose requests leaves the server, and on whose page nothing failed or ran."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # milliseconds: the tests beside it may have the processor
    page, asked, failed = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(error))
    page.goto(str(server.client.base_url))
    page.get_by_label("Text", exact=True).wait_for()
    title = page.title()
    yield page
    assert (page.title(), failed) == (title, [])
    own = (str(server.client.base_url).rstrip("/"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    context.close()


def give(page, text=None, picture=None):
    """Fill in a pair and ask; returns the cards' texts."""
    if picture is not None:
        file = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture}
        page.locator("input[type=file]").first.set_input_files(file)
        page.locator("a[download='a.jpg']").wait_for()
    if text is not None:
        page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Answer", exact=True).click()


def test_answers_on_the_page_are_those_of_evaluate(
    page, server, picture, tiny_run, evaluate_main, tiny_pairs, tmp_path
):
    (tmp_path / "asked.txt").write_text("p3,null\n")
    evaluate_main(tiny_run.path, "--predict", tmp_path / "asked.txt", "--output", tmp_path / "answers.txt")
    (row,) = read_csv(tmp_path / "answers.probabilities.csv")
    text = (tiny_pairs / "data" / "p3.txt").read_text()

    give(page, text, picture)
    card = page.get_by_role("region", name=f"Run {tiny_run.path.name}", exact=True)
    for name in ("negative", "neutral", "positive"):
        card.locator("tr", has_text=name).get_by_text(f"{float(row[f'prob_{name}']):.3f}").wait_for()
    assert card.locator("strong").inner_text() == row["prediction"]
    assert "abstains" in page.get_by_role("region", name="Run text_only").inner_text()
    assert "--abstain" in card.inner_text()

    told = {answer["run"]: answer for answer in server.ask(text, picture)}
    values = told[tiny_run.path.name]["probabilities"]
    assert values == {name: pytest.approx(float(row[f"prob_{name}"]), abs=1e-6) for name in values}
    assert told["text_only"]["answered"] is False


def test_page_shows_words_and_regions(page, server, picture):
    page.get_by_label("Show the words").check()
    give(page, "the sun was happy", picture)
    page.locator("mark").first.wait_for()
    page.get_by_alt_text("Orange regions").wait_for()
    reasons = server.ask("the sun was happy", picture, True)[0]["reasons"]
    assert reasons["text"] == "the sun was happy"
    assert len(reasons["words"]) == 4


def test_example_fills_the_fields_and_is_answered(page):
    page.get_by_text("Examples from").wait_for()
    page.get_by_role("button", name=re.compile("^p1 ")).click()
    page.locator(".answer").first.wait_for()
    assert page.get_by_label("Text", exact=True).input_value().startswith("p1 ")


def test_csv_comes_back_with_answers(page, tmp_path):
    rows = [["id", "text"], *([f"r{number}", f"word {number}"] for number in range(18)), ["=2+3", HOSTILE]]
    content = io.StringIO()
    csv.writer(content).writerows(rows)
    page.get_by_role("tab", name="Many pairs").click()
    file = {"name": "asked.csv", "mimeType": "text/csv", "buffer": content.getvalue().encode()}
    page.locator("input[type=file]").last.set_input_files(file)
    page.locator("a[download='asked.csv']").wait_for()
    page.get_by_role("button", name="Answer all").click()
    with page.expect_download() as download:
        page.locator("a[download='answers.csv']").click()
    download.value.save_as(tmp_path / "answers.csv")
    found = read_csv(tmp_path / "answers.csv")
    assert [row["id"] for row in found] == [f"r{number}" for number in range(18)] + ["'=2+3"]
    assert all(row["prediction"] for row in found)


def test_hostile_pairs_end_in_an_answer_or_a_sentence(page, server, picture):
    give(page, HOSTILE * 20, picture)
    page.locator(".answer").first.wait_for()
    target = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(target, "PNG")
    refused = {"SVG drawing": b"<svg onload=alert(1)>", "known format": b"\x89PNG\r\n\x1a\n" + b"\0" * 99}
    refused |= {"Truncated": picture[:200], "20000 x 20000 pixels": target.getvalue()}
    for told, content in refused.items():
        page.reload()
        page.get_by_label("Text", exact=True).wait_for()
        give(page, picture=content)
        alert = page.get_by_role("alert").filter(has_text=told)
        alert.wait_for()
        assert alert.inner_text().startswith("Got an unreadable image")


@pytest.mark.parametrize("text", [HOSTILE, "word " * 20_000, "\u202e" * 99, "\ud800 a", "\x00\x1b\x07", "\ue000" * 9])
def test_hostile_texts_are_answered(server, text):
    assert [answer["run"] for answer in server.ask(text)] == [run.name for run in server.runs]
    assert "unreadable image" in server.ask(text, text.encode("utf-8", "replace"))


def test_limits_are_told(server, picture):
    assert server.ask(None) == "Give a text, or a picture, or both."
    assert "100,001 characters; at most 100,000" in server.ask("a" * 100_001)
    assert server.client.post("/gradio_api/upload", files={"files": b"a" * 2 * LARGEST}).status_code == 413
    assert server.client.post("/gradio_api/upload", content=iter([b"a"])).status_code == 411
    assert server.client.post("/gradio_api/call/answer", content=b"[" * 3_000_000).status_code == 413
    assert server.client.post("/gradio_api/call/answer", content=b"[" * 100_000).status_code == 403


def test_no_file_of_the_machine_is_read(server, picture):
    own = server.upload(picture)
    assert server.client.get(f"/gradio_api/file={own}").content == picture
    secret = server.runs[0] / "config.yaml"
    climbing = f"{own}/../../../../../../..{secret}"
    addresses = ("http://127.0.0.1:1/a.jpg", "https://example.org/a.jpg", "file:///etc/passwd", "data:,a")
    for path in (secret, "/etc/passwd", climbing, "../../etc/passwd", "demo/page.py", "", *addresses):
        for value in ({"path": str(path), **META}, {"path": str(path)}):
            for values in ([value, "a"], [None, value], [{"nested": [value]}, "a"]):
                assert "was not uploaded here" in server.call("answer", *values), path
        assert "was not uploaded here" in server.call("answer_file", {"path": str(path), **META})
        for route in (f"/gradio_api/file={path}", f"/gradio_api/file={quote(str(path), safe='')}"):
            assert server.client.get(route).status_code in (403, 404), route
    proxy = "proxy=http://127.0.0.1:1/"
    for route in (proxy, "file/etc/passwd", "run/answer", "api/answer", "openapi.json", "stream/a"):
        assert server.client.get(f"/gradio_api/{route}").status_code == 403
    for route in ("/docs", "/monitoring", "/login", "/assets/../../../config.yaml", "/static/..%2f..%2fetc%2fpasswd"):
        assert server.client.get(route).status_code in (403, 404), route


def test_visitors_at_once_all_get_their_answers_in_flat_memory(server, picture):
    def visit(number):
        return [answer["answer"] for answer in server.ask(f"visitor {number} is happy", picture)]

    texts = list(range(20))
    with ThreadPoolExecutor(len(texts)) as visitors:
        first = list(visitors.map(visit, texts))
        before, files = server.memory(), count_files(server)
        for _ in range(2):
            assert list(visitors.map(visit, texts)) == first
    assert server.memory() - before < 60e6
    assert count_files(server) == files  # the same picture is kept once


def count_files(server) -> int:
    return sum(path.is_file() for path in Path(server.upload(b"a")).parents[1].rglob("*"))


def test_csv_by_http(server):
    answered = server.ask_file(b"text\nhappy\n")
    content = server.client.get(f"/gradio_api/file={answered['path']}").text
    assert content.startswith("text,prediction,prob_negative")
    assert "no column" in server.ask_file(b"words\nhappy\n")
