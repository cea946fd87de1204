"""A model is uploaded to a hub once, whole, and nothing beside it: against a server that stands for the hub."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from conftest import tiny_flags
from huggingface_hub import constants

from modeling import publish
from training.flags.parsing import check_command_line


class Hub(ThreadingHTTPServer):
    """What huggingface_hub needs to upload: repositories by name, each with its branches of {file: content}."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict] = {}
        self.commits: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """One request to a `Hub`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub, *parts = self.server, *self.path.partition("?")[0].strip("/").split("/")
        if self.headers["Authorization"] != "Bearer right":
            return self._answer(401, {"error": "Invalid user token."})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            code = 409 if name in hub.repositories else 200
            hub.repositories.setdefault(
                name,
                {"private": asked.get("private") or asked.get("visibility") == "private", "main": {"model.bin": b""}},
            )
            return self._answer(code, {"url": f"{hub.address}/{name}", "name": name, "id": "1"})
        if parts[:2] == ["api", "validate-yaml"]:
            return self._answer(200, {"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        repository = hub.repositories[name]
        if parts[4] == "branch":
            code = 409 if parts[5] in repository else 200
            repository.setdefault(parts[5], dict(repository["main"]))
            return self._answer(code, {})
        if parts[4] == "preupload":
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]
            return self._answer(200, {"files": modes})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                repository[parts[5]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del repository[parts[5]][line["value"]["path"]]
        hub.commits.append(parts[5])
        return self._answer(
            200, {"commitUrl": f"{hub.address}/{name}/commit/1", "commitOid": "1", "pullRequestUrl": None}
        )

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if "/".join(parts[2:4]) not in self.server.repositories:
            return self._answer(404, {"error": "Not found."})
        repository = self.server.repositories["/".join(parts[2:4])]
        if parts[4:5] == ["tree"]:
            files = repository[parts[5]].items()
            return self._answer(200, [{"type": "file", "path": name, "oid": "1", "size": len(x)} for name, x in files])
        return self._answer(200, {"id": "1", "private": repository["private"], "siblings": []})

    def _answer(self, code: int, content: dict | list) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A hub on this machine that takes one token."""
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"ENDPOINT": server.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "right")
    yield server
    server.shutdown()
    server.server_close()


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_uploads_its_model_once_and_the_command_does_so_again(hub, run_train, refusal, capfd) -> None:
    options = ["--hub_model_id", "fashion", "--hub_private_repo", "--hub_revision", "next", "--save_steps", "1"]
    run, screen = run_train("--push_to_hub", *options, "--save_strategy", "steps", "--eval_strategy", "no")
    repository = hub.repositories["me/fashion"]
    assert hub.commits == ["next"]
    assert repository["private"]
    assert repository["next"] == read(run / "model") | {"model.bin": b""}
    assert "/commit/1" in screen

    stray = run / "model" / "model-00009-of-00009.safetensors"
    repository["next"] |= {stray.name: b"", "figure.png": b"kept"}
    (run / "model" / "vocab.txt").symlink_to(run / "config.yaml")
    (run / "model" / "notes.txt").write_text("mine")
    shutil.copytree(run / "checkpoints", run / "model" / "checkpoints")
    before = {name: content for name, content in repository["next"].items() if name not in (stray.name, "model.bin")}
    publish.main([str(run), "me/fashion", "--private", "--revision", "next"])
    assert "/commit/1" in capfd.readouterr().out
    assert repository["next"] == before | {"model.bin": b""}
    publish.main([str(run / "model"), "other/model"])
    assert set(hub.repositories["other/model"]["main"]) >= {"README.md", "config.json", "model.safetensors"}
    assert "it is there, and public" in refusal(publish.main, [str(run), "other/model", "--private"])
    assert "has no model in it" in refusal(publish.main, [str(run / "checkpoints"), "me/fashion"])


def test_what_can_not_be_uploaded_is_told_before_training(
    hub, sample, refusal, run_train, tmp_path, monkeypatch
) -> None:
    flags = ["--push_to_hub", "--hub_model_id", "me/model"]

    def refuse(*words: str) -> str:
        sentence = refusal(run_train, *flags, *words)
        assert not (tmp_path / "run" / "config.yaml").exists()
        return sentence

    assert "401 Unauthorized" in refuse("--hub_token", "wrong")
    assert "user/na me" in refuse("--hub_model_id", "user/na me")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "Can't publish me/model: " in refuse()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refuse()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "there is no token" in refuse()
    for words in (["--folds", "2"], ["--dry_run"]):
        assert words[0] in refusal(check_main, [*tiny_flags(sample, tmp_path), *flags, *words])


def check_main(words: list[str]) -> None:
    from training.launch.console import exit_on_user_error

    with exit_on_user_error():
        check_command_line(words)
