"""The cache: nothing is done twice, nothing stale is used, dead and simultaneous builds do no harm."""

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset
from tiny import TOKENIZER

from data_utils.prepare import loading
from data_utils.prepare.cache import build_once, cache_folder
from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.prepare.tokens import tokenize_pairs
from modeling.errors import InputError
from modeling.pictures import PictureSettings

KEY = "0" * 64
ROWS = {
    "guid": ["a", "bb", None, "schön"] * 3,
    "label": [0, 1, 2, -100] * 3,
    "input_ids": [[1, 2], [], [3], [4, 5, 6]] * 3,
    "present": [True, False, True, True] * 3,
    "image": [b"\xff\xd8" * 40, None, b"", b"x"] * 3,
}


@pytest.fixture
def counted(monkeypatch):
    """Names of the work done in this process: one "picture" per decoding, one "text" per reading."""
    work = []
    decode, clean = loading.decode_picture, loading.clean_text
    monkeypatch.setattr(loading, "decode_picture", lambda *args: work.append("picture") or decode(*args))
    monkeypatch.setattr(loading, "clean_text", lambda *args: work.append("text") or clean(*args))
    return work


@pytest.fixture
def load(make_arguments, small_picture, counted):
    """Load a folder; returns the dataset and the numbers of pictures decoded and texts read for it."""

    def run(folder, *, picture=small_picture, **options):
        counted.clear()
        data = make_arguments(folder, **options)
        pairs = load_pairs(PairList(folder / "train.txt", folder), data=data, picture=picture)
        return pairs.dataset, (counted.count("picture"), counted.count("text"))

    return run


def cache_folders(tmp_path: Path, name: str) -> list[Path]:
    return [path for path in sorted((tmp_path / "cache").glob(f"{name}-*")) if path.is_dir()]


def write_rows(folder: Path, values: list[int]) -> None:
    Dataset.from_dict({"x": values}).map(cache_file_name=str(folder / "part.arrow"), new_fingerprint="x")


def test_second_load_decodes_nothing(make_pairs, load, numbered_rows, photo):
    picture = photo(0)
    folder = make_pairs([(*row, f"words {row[0]}", picture) for row in numbered_rows(1100)])
    first, work = load(folder)
    assert work == (1100, 1100)
    second, work = load(folder)
    assert work == (0, 0)
    assert second[:] == first[:]


def test_files_that_change_appear_or_vanish_are_noticed(make_pairs, load, numbered_rows, photo):
    folder = make_pairs(numbered_rows(4))
    before, _ = load(folder)
    photo("new").save(folder / "data" / "101.jpg")
    after, work = load(folder)
    assert work == (4, 0)
    assert [after[row]["image"] == before[row]["image"] for row in range(4)] == [True, False, True, True]

    text = folder / "data" / "102.txt"
    status = text.stat()
    text.write_text("other words here"[: status.st_size].ljust(status.st_size, "!"))
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # same size: the time alone tells
    after, work = load(folder)
    assert work == (0, 4)
    assert after[2]["text"].startswith("other words")

    (folder / "data" / "101.jpg").unlink()
    assert not load(folder)[0][1]["image_present"]
    photo(1).save(folder / "data" / "101.png")
    assert load(folder)[0][1]["image_present"]


def test_an_option_rebuilds_only_what_it_shapes(make_pairs, load, numbered_rows):
    folder = make_pairs(numbered_rows(3))
    load(folder)
    assert load(folder, text_cleaning="tweet")[1] == (0, 3)
    assert load(folder, picture=PictureSettings(16, 16, "squash", 3))[1] == (3, 0)
    assert load(folder, on_bad_pair="drop")[1] == (0, 0)
    assert load(folder, preprocessing_num_workers=2)[1] == (0, 0)
    assert load(folder, overwrite_cache=True)[1] == (3, 3)
    (folder / "train.txt").write_text("".join(f"{number},negative\n" for number in (100, 101, 102)))
    dataset, work = load(folder)
    assert work == (0, 0)
    assert dataset["label"][:] == [0, 0, 0]


def test_several_processes_give_the_same_rows(make_pairs, load, numbered_rows, photo, tmp_path):
    picture = photo(0)
    folder = make_pairs([(*row, f"words {row[0]}", picture) for row in numbered_rows(150)])
    (folder / "data" / "120.jpg").write_bytes(b"no picture")
    alone, shared = load(folder), load(folder, preprocessing_num_workers=2, cache_dir=str(tmp_path / "other"))
    assert shared[0][:] == alone[0][:]


@pytest.mark.parametrize("damage", ["truncated", "gone", "meta"])
def test_damaged_cache_is_built_again_with_a_notice(make_pairs, load, numbered_rows, tmp_path, caplog, damage):
    folder = make_pairs(numbered_rows(3))
    before, _ = load(folder)
    before = before[:]
    (cache,) = cache_folders(tmp_path, "pictures")
    (part,), meta = cache.glob("*.arrow"), cache / "meta.json"
    if damage == "truncated":
        os.truncate(part, part.stat().st_size // 2)
    elif damage == "gone":
        part.unlink()
    else:
        meta.write_text("[]")
    after, work = load(folder)
    assert work == (3, 0)
    assert after[:] == before
    assert caplog.text.count("is damaged") == 1
    assert load(folder)[1] == (0, 0)


@pytest.mark.parametrize("name", ["texts", "tokens"])
def test_other_bytes_in_the_middle_of_a_file_are_noticed(make_pairs, load, numbered_rows, tmp_path, caplog, name):
    folder = make_pairs(numbered_rows(30))

    def read():
        rows, _ = tokenize_pairs(load(folder)[0], TOKENIZER, max_length=8, cache_dir=tmp_path / "cache")
        return rows[:]

    before = read()
    (cache,) = cache_folders(tmp_path, name)
    part = sorted(cache.glob("*.arrow"))[0]
    content = part.read_bytes()
    third = len(content) // 3
    part.write_bytes(content[:third] + bytes(third) + content[2 * third :])
    assert read() == before
    assert caplog.text.count(f"{part.name} holds other bytes than were written); building it again") == 1
    assert part.read_bytes() == content
    caplog.clear()
    assert read() == before
    assert not caplog.text


def test_killed_build_leaves_nothing_that_is_used(tmp_path):
    child = os.fork()
    if child == 0:

        def die(folder: Path) -> None:
            write_rows(folder, [666])
            os.kill(os.getpid(), signal.SIGKILL)

        build_once(tmp_path, "rows", "k" * 64, die)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert len(list(tmp_path.glob("*building*"))) == 1
    dataset = build_once(tmp_path, "rows", "k" * 64, lambda folder: write_rows(folder, [1, 2]))
    assert dataset["x"][:] == [1, 2]
    assert not list(tmp_path.glob("*building*"))


def test_what_failed_or_died_or_lies_in_the_place_of_a_cache_is_removed(tmp_path):
    def fail(folder: Path) -> None:
        write_rows(folder, [666])
        raise KeyError("broken")

    with pytest.raises(KeyError):
        build_once(tmp_path, "rows", "k", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    (tmp_path / "rows-k").write_text("no folder")
    (tmp_path / "rows-another.building-1234").mkdir()
    (tmp_path / "rows-other.building-1234").write_text("no folder")
    assert build_once(tmp_path, "rows", "k", lambda folder: write_rows(folder, [3]))["x"][:] == [3]
    assert (tmp_path / "rows-k").is_dir()
    assert not list(tmp_path.glob("*building*"))


def test_unwritable_or_full_cache_folder_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--cache_dir"):
        build_once(tmp_path / "file" / "cache", "rows", "k", lambda folder: write_rows(folder, [1]))

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match="No space left"):
        build_once(tmp_path, "rows", "k", full)


def test_two_runs_at_once_build_once(make_pairs, make_arguments, small_picture, numbered_rows, tmp_path, monkeypatch):
    folder = make_pairs(numbered_rows(40))
    data = make_arguments(folder)
    decode = loading.decode_picture

    def slow_decode(*args):
        with (tmp_path / "decoded").open("a") as file:
            file.write("1\n")
        time.sleep(0.01)  # both runs are under way while the first one builds
        return decode(*args)

    monkeypatch.setattr(loading, "decode_picture", slow_decode)
    processes = multiprocessing.get_context("fork")
    barrier, results = processes.Barrier(2), processes.SimpleQueue()

    def run():
        barrier.wait(timeout=60)
        pairs = load_pairs(PairList(folder / "train.txt", folder), data=data, picture=small_picture)
        results.put((pairs.fingerprint, [len(row["image"]) for row in pairs.dataset]))

    runs = [processes.Process(target=run) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join(timeout=60)
    assert [process.exitcode for process in runs] == [0, 0]
    first, second = results.get(), results.get()
    assert first == second
    assert first[1] == [3 * 32 * 32] * 40
    assert len((tmp_path / "decoded").read_text().split()) == 40


def build(folder: Path) -> None:
    table = pa.table(ROWS | {"image": pa.array(ROWS["image"], pa.binary())})
    with pa.ipc.new_stream(str(folder / "part.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    (folder / "quarantine.json").write_text("[[1, 2, 3]]")


def load_rows(cache_dir: Path, *, checked: bool = False) -> Dataset:
    return build_once(cache_dir, "rows", KEY, build, checked=checked)


@pytest.mark.parametrize("checked", [False, True])
def test_any_bit_turned_is_noticed_but_in_what_binary_columns_hold(tmp_path, caplog, checked):
    assert load_rows(tmp_path, checked=checked).to_dict() == ROWS
    files = [cache_folder(tmp_path, "rows", KEY) / name for name in ("part.arrow", "quarantine.json", "meta.json")]
    sound = {path: path.read_bytes() for path in files[:2]}
    rng, rebuilt = random.Random(0), 0
    for turn in range(300):
        path = files[turn % 3]
        content = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        caplog.clear()
        found = load_rows(tmp_path, checked=checked).to_dict()
        rebuilt += caplog.text.count("building it again") == 1
        without_pictures = {name: values for name, values in found.items() if name != "image" or checked}
        assert without_pictures == {name: ROWS[name] for name in without_pictures}
        assert [len(picture or b"") for picture in found["image"]] == [len(picture or b"") for picture in ROWS["image"]]
        assert files[1].read_bytes() == sound[files[1]]
        for other, before in sound.items():
            other.write_bytes(before)
    assert rebuilt > 200, "padding, pictures and the time of building aside"


@pytest.mark.parametrize("name", ["part.arrow", "quarantine.json", "meta.json"])
def test_file_of_200_gigabytes_in_a_cache_is_built_again(tmp_path, name):
    load_rows(tmp_path)
    os.truncate(cache_folder(tmp_path, "rows", KEY) / name, 200 * 2**30)
    assert load_rows(tmp_path).to_dict() == ROWS
    assert (cache_folder(tmp_path, "rows", KEY) / name).stat().st_size < 2**20
