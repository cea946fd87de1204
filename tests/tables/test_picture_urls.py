"""Pictures of a table that are given as URLs: fetched once, where that is allowed, or told why they could not be."""

import hashlib
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tables.table_files import PICTURE, TEXT, locate

from data_utils.prepare.pair_files import FileState
from data_utils.sources.quarantine import Reason
from data_utils.tables import urls
from modeling.errors import InputError


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; `asked` counts the requests by their paths."""
    monkeypatch.setenv("no_proxy", "*")
    asked, pages = Counter(), {"/a.png": (200, PICTURE)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            if self.path == "/slow":  # each piece comes in time, all of them don't
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                for _ in range(40):
                    time.sleep(0.05)
                    self.wfile.write(b"\x89")
                return
            status, content = pages.get(self.path, (404, b"nothing"))
            if self.path.startswith("/hop"):
                status, content = 302, f"/hop{int(self.path[4:]) - 1}" if self.path != "/hop0" else "/a.png"
            self.send_response(status)
            if status == 302:
                self.send_header("Location", content)
                content = b""
            self.send_header("Content-Length", str(len(content) + (self.path == "/cut")))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.pages = asked, pages
        server.handle_error = lambda *_: None  # the other side went away
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_urls_are_fetched_once_and_only_when_allowed(make_table, load_pixels, server, tmp_path):
    (tmp_path / "b.png").write_bytes(PICTURE)
    table = make_table([f"{server.url}/a.png", "b.png", None, f" {server.url}/a.png"])
    with pytest.raises(InputError, match=r"2 of 4 pictures of rows\.csv .*--allow_urls"):
        locate(table)
    assert not server.asked
    first = locate(table, allow_urls=True)
    assert locate(table, allow_urls=True) == first
    assert server.asked == {"/a.png": 1}
    one, two, _, again = load_pixels(table, allow_urls=True)
    assert one == two == again
    kept = [path.name for path in (tmp_path / "cache" / "urls").iterdir()]
    assert len(kept) == 2  # and the list of what failed
    with pytest.raises(InputError, match="--allow_urls"):
        locate(table)
    with pytest.raises(InputError, match="--allow_urls"):
        locate(make_table([{"bytes": None, "path": f"{server.url}/a.png"}]))


def test_up_to_five_redirects_are_followed(make_table, server):
    *good, bad = locate(make_table([f"{server.url}/hop{hops}" for hops in (0, 4, 5)]), allow_urls=True)
    assert all(isinstance(state, FileState) and state.size == len(PICTURE) for state in good)
    assert bad.reason == Reason.MISSING_IMAGE
    assert "TooManyRedirects" in bad.detail


@pytest.mark.parametrize(
    ("path", "page", "words"),
    [
        ("/gone", None, "404"),
        ("/page", (200, b"<!doctype html><html>sorry</html>"), "an HTML page"),
        ("/words", (200, b"no such picture"), "no such picture"),
        ("/nothing", (204, b""), "204"),
        ("/large", (200, PICTURE + bytes(5000)), "more than 5,000 bytes"),
        ("/cut", (200, PICTURE), "ContentLength"),
        ("/local", (302, "file:///etc/passwd"), "file:///etc/passwd"),
        ("/ftp", (302, "ftp://127.0.0.1/a.png"), "ftp://127.0.0.1/a.png"),
        ("/inline", (302, f"data:image/png;base64,{TEXT}"), "data:"),
        ("/slow", None, "Timeout"),
    ],
)
def test_what_can_not_be_fetched_is_a_fault_of_its_row(
    make_table, load_pixels, server, monkeypatch, tmp_path, path, page, words
):
    monkeypatch.setattr(urls, "MAX_BYTES", 5000)
    monkeypatch.setattr(urls, "TOTAL", 0.5)
    server.pages |= {path: page} if page else {}
    table = make_table([f"{server.url}{path}", f"{server.url}/a.png"])
    (reason, detail), pixels = load_pixels(table, allow_urls=True)
    assert reason == Reason.MISSING_IMAGE
    assert path in detail
    assert words in detail
    assert len(pixels) == 3 * 32 * 32
    assert load_pixels(table, allow_urls=True)[0] == (reason, detail)  # the same key of the cache, after another try
    assert server.asked[path] == 2

    server.pages[path] = (200, PICTURE)
    if path != "/slow" and path != "/cut":
        assert load_pixels(table, allow_urls=True) == [pixels, pixels]
    assert not list((tmp_path / "cache" / "urls").glob("*.tmp"))
    assert server.asked["/a.png"] == 1


def test_silence_and_a_closed_port_cost_no_more_than_the_wait(make_table, monkeypatch):
    monkeypatch.setattr(urls, "WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [each.getsockname()[1] for each in (silent, closed)]
        closed.close()
        texts = [f"http://127.0.0.1:{port}/a.png" for port in ports]
        start = time.monotonic()
        faults = locate(make_table([*texts, "http://", "http://[/a.png", "http://a..b/c"]), allow_urls=True)
    assert {fault.reason for fault in faults} == {Reason.MISSING_IMAGE}
    assert time.monotonic() - start < 10


def test_ranks_that_ask_at_once_fetch_once_and_see_the_same(make_table, server):
    server.pages["/page"] = (200, b"<html></html>")
    table = make_table([f"{server.url}/a.png", f"{server.url}/page", f"{server.url}/gone"])
    barrier = threading.Barrier(3)

    def start(_):
        barrier.wait()
        return locate(table, allow_urls=True)

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(start, range(3))
    assert others == [first, first]
    assert server.asked["/a.png"] == 1


def test_a_link_in_the_cache_is_not_followed(make_table, server, tmp_path):
    url = f"{server.url}/a.png"
    file = tmp_path / "cache" / "urls" / hashlib.sha256(url.encode()).hexdigest()
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "outside")
    (state,) = locate(make_table([url]), allow_urls=True)
    assert state.size == len(PICTURE)
    assert not (tmp_path / "outside").exists()


def test_urls_in_lists_are_fetched(make_table, server):
    table = make_table([[f"{server.url}/a.png", f"{server.url}/gone"], [f"{server.url}/a.png"]])
    with pytest.raises(InputError, match="3 of 3 pictures"):
        locate(table)
    (state, fault), again = locate(table, allow_urls=True)
    assert state == again
    assert fault.reason == Reason.MISSING_IMAGE
