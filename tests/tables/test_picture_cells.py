"""Pictures of a table's column: paths, bytes, base64, structs and URLs, each found or told what is wrong with it."""

import base64
import hashlib
import io
import pickle
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest
from datasets import Dataset, Image
from PIL import Image as PillowImage

from data_utils.prepare.loading import load_picture_row
from data_utils.prepare.pair_files import FileState, PictureCell
from data_utils.sources.quarantine import Reason
from data_utils.tables import urls
from data_utils.tables.pictures import TableCells, locate_pictures
from data_utils.tables.table import Table
from modeling.errors import InputError


def encode(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = encode(PillowImage.new("RGB", (48, 36), (10, 90, 200)))
NOISE = encode(PillowImage.effect_noise((90, 90), 60))
TEXT = base64.b64encode(PICTURE).decode()


@pytest.fixture
def make_table(tmp_path):
    """Factory of a memory-mapped table with the column `image`, in several pieces."""

    def make(values, kind=None, name="rows"):
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as file:
            table = pa.table({"image": pa.array(values, kind)})
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
        return Table(f"{name}.csv", Dataset.from_file(str(tmp_path / f"{name}.arrow")), str(tmp_path))

    return make


@pytest.fixture
def locate(tmp_path):
    def run(table, *, image_dir=None, allow_urls=False):
        options = {"image_dir": image_dir, "allow_urls": allow_urls, "cache_dir": tmp_path / "cache"}
        return locate_pictures(table, "image", **options)

    return run


@pytest.fixture
def load(locate, small_picture):
    """The pixels of every row's picture, or the reason and the detail."""

    def run(table, **options):
        cells = pickle.loads(pickle.dumps(TableCells({table.dataset._fingerprint: table.dataset}, "image")))
        found = [load_picture_row("1", file, small_picture, 10**6, cells) for file in locate(table, **options)]
        return [row["image"] or (row["image_reason"], row["image_detail"]) for row in found]

    return run


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


def test_every_way_to_give_a_picture_gives_the_same_pixels(make_table, load, tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "b.png").write_bytes(NOISE)
    lines = "\n".join(TEXT[start : start + 60] for start in range(0, len(TEXT), 60))
    url_safe = base64.urlsafe_b64encode(PICTURE).decode().rstrip("=")
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    ways = [
        make_table(
            ["a.png", f"{tmp_path}/a.png", TEXT, lines, url_safe, f" data:image/png;base64,{TEXT}\n"], name="text"
        ),
        make_table(["a.png"], pa.large_string(), "large"),
        make_table(["a.png", "a.png"], pa.dictionary(pa.int32(), pa.string()), "words"),
        make_table([PICTURE, PICTURE, PICTURE], name="bytes"),
        make_table([PICTURE], pa.large_binary(), "large_bytes"),
        make_table([{"bytes": PICTURE, "path": "b.png"}, {"bytes": None, "path": "a.png"}], struct, "structs"),
        make_table([{"bytes": None, "path": "a.png"}], name="paths"),
    ]
    found = [pixels for table in ways for pixels in load(table)]
    assert len(found) == 16
    assert {len(pixels) for pixels in found} == {3 * 32 * 32}
    assert len(set(found)) == 1

    long = base64.b64encode(NOISE).decode()
    assert len(long) > 4096
    assert load(make_table([long, "b.png"])) == load(make_table([NOISE, NOISE], name="noise"))


def test_a_name_without_its_ending_is_found_where_no_file_has_the_bare_name(make_table, locate, tmp_path):
    for name in ("7.jpg", "7.png", "8", "8.jpg", "v1.2.PNG", "915657464401580032.webp"):
        (tmp_path / name).write_bytes(PICTURE)
    (tmp_path / "9.jpg").mkdir()

    def find(values):
        found = locate(make_table(values))
        return [each.path.rpartition("/")[2] if isinstance(each, FileState) else each.reason for each in found]

    assert find(["7", "8", "v1.2", "9"]) == ["7.jpg", "8", "v1.2.PNG", Reason.MISSING_IMAGE]
    assert find([7, 915657464401580032, None]) == ["7.jpg", "915657464401580032.webp", Reason.MISSING_IMAGE]


def test_an_image_of_datasets_is_read_undecoded(load, tmp_path):
    dataset = Dataset.from_dict({"image": [{"bytes": PICTURE, "path": None}, None]}).cast_column("image", Image())
    dataset.save_to_disk(str(tmp_path / "saved"))
    pixels, fault = load(Table("saved", Dataset.load_from_disk(str(tmp_path / "saved")), ""))
    assert len(pixels) == 3 * 32 * 32
    assert fault == (Reason.MISSING_IMAGE, "the cell is empty")


def test_rows_that_were_selected_keep_their_pictures(make_table, load, tmp_path):
    (tmp_path / "b.png").write_bytes(NOISE)
    table = make_table([{"bytes": PICTURE, "path": ""}, {"bytes": None, "path": "b.png"}, {"bytes": NOISE, "path": ""}])
    pictures = load(table)
    picked = table._replace(dataset=table.dataset.select([2, 0, 1]))
    assert load(picked) == [pictures[row] for row in (2, 0, 1)]


def test_what_is_wrong_with_a_row_is_told(make_table, load, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "A.png").write_bytes(PICTURE)
    texts = [
        None,
        "",
        " ",
        "NaN",
        "gone.jpg",
        "A%2Epng",
        "B",
        "~/a.png",
        "nul\0.png",
        "notes",
        "x" * 300,
        "file:///A.png",
    ]
    missing = {row for row, found in enumerate(load(make_table(texts))) if found[0] == Reason.MISSING_IMAGE}
    assert missing == set(range(len(texts))) - {9, 10}
    told = load(make_table([*texts[4:5], "no base64? " * 500, "data:text/plain,abc", "data:image/png;base64,abcde"]))
    assert [reason for reason, _ in told] == [Reason.MISSING_IMAGE, *[Reason.UNREADABLE_IMAGE] * 3]
    for (_, detail), words in zip(
        told, ("gone.jpg", "neither a path nor base64", "isn't base64", "base64"), strict=True
    ):
        assert words in detail
    odd = pa.array([b"\xff.png"]).view(pa.string())
    assert load(make_table(odd))[0][0] == Reason.MISSING_IMAGE


@pytest.mark.parametrize(
    "values", [[None, None], [float("nan"), None], [{"bytes": None, "path": None}], pa.array([], pa.string())]
)
def test_a_column_of_nothing_has_no_pictures(make_table, load, values):
    assert load(make_table(values)) == [(Reason.MISSING_IMAGE, "the cell is empty")] * len(values)


@pytest.mark.parametrize("values", [[0.5], [{"x": "a"}], [[["a.png"]]], [True]])
def test_a_column_of_something_else_is_refused(make_table, locate, values):
    with pytest.raises(InputError, match=r"'image' of rows\.csv holds .*--image_column"):
        locate(make_table(values))


def test_relative_paths_begin_in_image_dir(make_table, locate, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PICTURE)
    (state,) = locate(make_table(["a.png"]), image_dir=str(tmp_path / "photos"))
    assert (state.path, state.kind, state.size) == (str(tmp_path / "photos" / "a.png"), "file", len(PICTURE))
    with pytest.raises(InputError, match="--image_dir"):
        locate(make_table(["a.png"]), image_dir=str(tmp_path / "gone"))


def test_another_content_of_the_table_is_another_key(make_table, locate):
    before = locate(make_table([PICTURE]))
    assert before == [PictureCell(before[0].table, 0)]
    assert locate(make_table([NOISE], name="other")) != before


def test_many_paths_are_located_soon(make_table, locate):
    texts = [f"photos/{row}.jpg" for row in range(20_000)]
    start = time.perf_counter()
    assert len(locate(make_table(texts))) == len(texts)
    assert time.perf_counter() - start < 5


def test_pictures_in_the_table_are_located_without_being_read(make_table, locate):
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [bytes(10**6), "a" * 10**6, {"bytes": bytes(10**6), "path": "a.png"}]
    tables = [
        make_table([value] * 3, kind, str(kind)[:6]) for value, kind in zip(values, (None, None, struct), strict=True)
    ]
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        found = [each for table in tables for each in locate(table)]
    finally:
        pa.set_memory_pool(usual)
    assert len(found) == 9
    assert all(isinstance(each, PictureCell) for each in found)
    assert 0 < counted.max_memory() < 10**5


def test_urls_are_fetched_once_and_only_when_allowed(make_table, locate, load, server, tmp_path):
    (tmp_path / "b.png").write_bytes(PICTURE)
    table = make_table([f"{server.url}/a.png", "b.png", None, f" {server.url}/a.png"])
    with pytest.raises(InputError, match=r"2 of 4 pictures of rows\.csv .*--allow_urls"):
        locate(table)
    assert not server.asked
    first = locate(table, allow_urls=True)
    assert locate(table, allow_urls=True) == first
    assert server.asked == {"/a.png": 1}
    one, two, _, again = load(table, allow_urls=True)
    assert one == two == again
    kept = [path.name for path in (tmp_path / "cache" / "urls").iterdir()]
    assert len(kept) == 2  # and the list of what failed
    with pytest.raises(InputError, match="--allow_urls"):
        locate(table)
    with pytest.raises(InputError, match="--allow_urls"):
        locate(make_table([{"bytes": None, "path": f"{server.url}/a.png"}]))


def test_up_to_five_redirects_are_followed(make_table, locate, server):
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
    make_table, load, server, monkeypatch, tmp_path, path, page, words
):
    monkeypatch.setattr(urls, "MAX_BYTES", 5000)
    monkeypatch.setattr(urls, "TOTAL", 0.5)
    server.pages |= {path: page} if page else {}
    table = make_table([f"{server.url}{path}", f"{server.url}/a.png"])
    (reason, detail), pixels = load(table, allow_urls=True)
    assert reason == Reason.MISSING_IMAGE
    assert path in detail
    assert words in detail
    assert len(pixels) == 3 * 32 * 32
    assert load(table, allow_urls=True)[0] == (reason, detail)  # the same key of the cache, after another try
    assert server.asked[path] == 2

    server.pages[path] = (200, PICTURE)
    if path != "/slow" and path != "/cut":
        assert load(table, allow_urls=True) == [pixels, pixels]
    assert not list((tmp_path / "cache" / "urls").glob("*.tmp"))
    assert server.asked["/a.png"] == 1


def test_silence_and_a_closed_port_cost_no_more_than_the_wait(make_table, locate, monkeypatch):
    monkeypatch.setattr(urls, "WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [each.getsockname()[1] for each in (silent, closed)]
        closed.close()
        texts = [f"http://127.0.0.1:{port}/a.png" for port in ports]
        start = time.monotonic()
        faults = locate(make_table([*texts, "http://", "http://[/a.png", "http://a..b/c"]), allow_urls=True)
    assert {fault.reason for fault in faults} == {Reason.MISSING_IMAGE}
    assert time.monotonic() - start < 10


def test_ranks_that_ask_at_once_fetch_once_and_see_the_same(make_table, locate, server):
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


def test_a_link_in_the_cache_is_not_followed(make_table, locate, server, tmp_path):
    url = f"{server.url}/a.png"
    file = tmp_path / "cache" / "urls" / hashlib.sha256(url.encode()).hexdigest()
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "outside")
    (state,) = locate(make_table([url]), allow_urls=True)
    assert state.size == len(PICTURE)
    assert not (tmp_path / "outside").exists()


def test_a_list_holds_the_pictures_of_its_row(make_table, load, locate, tmp_path):
    (tmp_path / "b.png").write_bytes(NOISE)
    other = encode(PillowImage.new("RGB", (40, 40), (200, 10, 10)))
    pixels = [load(make_table([content], name="one"))[0] for content in (PICTURE, NOISE, other)]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = [[{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "b.png"}], None, [{"bytes": other}]]
    tables = [
        make_table([[TEXT, "b.png"], None, [base64.b64encode(other).decode()]], name="texts"),
        make_table([[PICTURE, NOISE], [], [None, other, b""]], pa.large_list(pa.binary()), "bytes"),
        make_table(structs, pa.list_(struct), "structs"),
        make_table([[PICTURE, NOISE], None, [other, None]], pa.list_(pa.binary(), 2), "pairs"),
    ]
    for table in tables:
        assert load(table) == [pixels[0] + pixels[1], (Reason.MISSING_IMAGE, "the cell is empty"), pixels[2]]
    picked = tables[0]._replace(dataset=tables[0].dataset.select([2, 0]))
    assert load(picked) == [pixels[2], pixels[0] + pixels[1]]


def test_a_list_with_a_bad_picture_or_too_many_is_told(make_table, load, locate):
    (found,) = load(make_table([[PICTURE, b"none", NOISE]]))
    assert found == (Reason.UNREADABLE_IMAGE, "picture 2 of 3: not a picture in a known format")
    assert len(locate(make_table([[PICTURE] * 16]))[0]) == 16
    with pytest.raises(InputError, match=r"Row 2 of .* has 17 pictures .* at most 16"):
        locate(make_table([[PICTURE], [PICTURE] * 17]))
    with pytest.raises(InputError, match="--image_column"):
        locate(make_table([[[PICTURE]]]))


def test_urls_in_lists_are_fetched(make_table, locate, server):
    table = make_table([[f"{server.url}/a.png", f"{server.url}/gone"], [f"{server.url}/a.png"]])
    with pytest.raises(InputError, match="3 of 3 pictures"):
        locate(table)
    (state, fault), again = locate(table, allow_urls=True)
    assert state == again
    assert fault.reason == Reason.MISSING_IMAGE
