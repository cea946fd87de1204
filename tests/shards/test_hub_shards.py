"""evaluate.py answers shards on the hub, and asks nobody for its own model."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_photo
from huggingface_hub import constants
from huggingface_hub.hf_file_system import HfFileSystem

from run_files.run_folder import RunFolder

ROWS = 5


def build_shard() -> bytes:
    picture, target = io.BytesIO(), io.BytesIO()
    draw_photo().save(picture, "JPEG")
    pq.write_table(pa.table({"image": [picture.getvalue()] * ROWS, "text": ["a good day"] * ROWS}), target)
    return target.getvalue()


class Hub(http.server.ThreadingHTTPServer):
    """A hub with one data set of one file; `asked` holds the paths of all requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []
        self.shard = build_shard()


class Answer(http.server.BaseHTTPRequestHandler):
    """The answers of the hub's interface that its file system asks for."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        content, status = server.shard, 200
        if self.path.startswith("/api/"):
            file = {"type": "file", "path": "a.parquet", "size": len(server.shard), "oid": "0" * 40}
            about = {"id": "u/d", "sha": "1" * 40, "siblings": [], "tags": [], "private": False}
            content = json.dumps([file] if "/tree/" in self.path or "/paths-info/" in self.path else about).encode()
        elif bounds := self.headers.get("Range"):
            first, last = bounds.removeprefix("bytes=").split("-")
            content, status = content[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", '"0"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    do_HEAD = do_GET

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(fresh_state: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that can be reached, in place of the one that tests can't reach."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        url = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        HfFileSystem.clear_instance_cache()
        yield server
        HfFileSystem.clear_instance_cache()
        server.shutdown()


def test_shards_on_the_hub_are_predicted(
    hub: Hub, evaluate_main: Callable[..., None], tiny_run: RunFolder, tmp_path: Path
) -> None:
    shards, output = "hf://datasets/u/d/*.parquet", tmp_path / "o.csv"
    evaluate_main(tiny_run.path, "--predict", shards, "--streaming", "--output", output)
    assert len(output.read_text().splitlines()) == ROWS + 1
    assert any("resolve" in path for path in hub.asked)


def test_evaluation_asks_no_hub_for_its_own_model(
    hub: Hub, evaluate_main: Callable[..., None], tiny_run: RunFolder
) -> None:
    evaluate_main(tiny_run.path)
    assert hub.asked == []
