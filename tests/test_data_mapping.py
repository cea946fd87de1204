"""map_to_folder: rows in order from any number of processes, and no process that outlives the program."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from datasets import Dataset, Features, Value, concatenate_datasets
from launching import descendants, is_alive, wait_for

from data_utils.prepare import mapping
from data_utils.prepare.mapping import Workers, map_to_folder
from modeling.errors import InputError

FEATURES = Features({"square": Value("int64")})
WORDS = Features({"word": Value("binary")})


def square(row, offset):
    return {"square": row["x"] ** 2 + offset}


def spell(row):
    return {"word": None if row["x"] % 3 == 1 else bytes([row["x"] % 256]) * (row["x"] % 7)}


def write_much(row):
    return {"word": bytes(2 << 20)}


def die(row):
    os.kill(os.getpid(), signal.SIGKILL)


def name_process(row):
    return {"square": os.getpid()}


def fail(row):
    raise OSError(28, "No space left on device")


def sleep(row):
    time.sleep(60)


def run(folder, function, count, workers, *, features=FEATURES, rows_per_worker=32, **options):
    with Workers(workers) as started:
        run_by(started, folder, function, count, features=features, rows_per_worker=rows_per_worker, **options)


def run_by(workers, folder, function, count, *, features=FEATURES, rows_per_worker=32, **options):
    folder.mkdir(exist_ok=True)
    map_to_folder(
        {"x": list(range(count))},
        function,
        folder=folder,
        features=features,
        options=options,
        workers=workers,
        rows_per_worker=rows_per_worker,
        description="Squaring",
    )


def read_all(folder):
    return concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))])


def wait_for_end(pids):
    limit = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < limit, "a process outlived its work"
        time.sleep(0.01)


def test_files_are_cut_alike_whatever_a_row_costs(tmp_path):
    for name, rows_per_worker in (("dear", 32), ("cheap", 4096)):
        run(tmp_path / name, square, 300, 2, rows_per_worker=rows_per_worker, offset=0)
    dear, cheap = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("dear", "cheap"))
    assert len(dear) > 2
    assert dear == cheap  # what is joined is cut where either is, and each piece costs time at every start


def test_processes_are_started_where_rows_are_many_and_kept_for_the_next(tmp_path):
    before, seen, started = set(descendants(os.getpid())), {}, {}
    with Workers(2) as workers:
        for name, rows_per_worker in (("few", 4096), ("many", 32), ("next", 4096)):
            run_by(workers, tmp_path / name, name_process, 300, rows_per_worker=rows_per_worker)
            seen[name] = set(read_all(tmp_path / name)["square"])
            started[name] = set(descendants(os.getpid())) - before
    assert (seen["few"], started["few"]) == ({os.getpid()}, set())
    assert len(started["many"]) == 2
    assert started["many"] == started["next"] >= seen["many"] | seen["next"]
    wait_for_end(started["many"])


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (300, 1), (300, 3)])
def test_rows_come_in_order(tmp_path, monkeypatch, count, workers):
    monkeypatch.setattr(mapping, "_ROWS_PER_FILE", 100)
    run(tmp_path, square, count, workers, offset=1)
    parts = [Dataset.from_file(str(path)) for path in sorted(tmp_path.glob("*.arrow"))]
    assert len(parts) >= count / 100
    dataset = concatenate_datasets(parts)
    assert dataset.features == FEATURES
    assert dataset["square"][:] == [x**2 + 1 for x in range(count)]


@pytest.mark.parametrize("count", [1, 100])
def test_bytes_come_as_they_were_given(tmp_path, count):
    run(tmp_path, spell, count, 1, features=WORDS)
    parts = [Dataset.from_file(str(path)) for path in sorted(tmp_path.glob("*.arrow"))]
    assert concatenate_datasets(parts)["word"][:] == [spell({"x": x})["word"] for x in range(count)]
    for part in parts:
        part.data.table.validate(full=True)


@pytest.mark.parametrize(("num_rows", "workers"), [(1, 1), (17, 1), (3600, 2), (100_000, 64)])
def test_files_cover_all_rows_and_end_small(num_rows, workers):
    spans = mapping._plan_files(num_rows, workers)
    assert [row for start, end in spans for row in range(start, end)] == list(range(num_rows))
    sizes = [end - start for start, end in spans]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= max(16, num_rows / (2 * workers))
    assert sizes[-1] <= 16
    assert len(sizes) < 10 * workers * math.log2(num_rows + 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "part-000000000000.arrow").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, write_much, 1, 1, features=WORDS)


def test_killed_process_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"killed while squaring.*--preprocessing_num_workers \(now 2\)"):
        run(tmp_path, die, 100, 2)


def test_error_of_a_process_is_raised_when_none_writes_any_more(tmp_path):
    before = set(descendants(os.getpid()))
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, fail, 100, 2)
    assert not set(descendants(os.getpid())) - before


def test_processes_end_with_the_program(tmp_path):
    code = f"import pathlib, test_data_mapping as t; t.run(pathlib.Path({str(tmp_path)!r}), t.sleep, 100, 2)"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    program = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    assert wait_for(lambda: len(descendants(program.pid)) == 2, program)
    workers = descendants(program.pid)
    program.kill()
    program.wait()
    wait_for_end(workers)
