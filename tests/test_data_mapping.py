"""map_to_folder: rows in order from any number of processes, and no process that outlives the program."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from datasets import Dataset, Features, Value, concatenate_datasets
from launching import descendants, is_alive, wait_for

from data_utils import InputError, mapping
from data_utils.mapping import map_to_folder

FEATURES = Features({"square": Value("int64")})


def square(row, offset):
    return {"square": row["x"] ** 2 + offset}


def die(row):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(row):
    raise OSError(28, "No space left on device")


def sleep(row):
    time.sleep(60)


def run(folder, function, count, workers, **options):
    map_to_folder(
        {"x": list(range(count))},
        function,
        folder=folder,
        features=FEATURES,
        options=options,
        num_workers=workers,
        description="Squaring",
    )


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (300, 1), (300, 3)])
def test_rows_come_in_order(tmp_path, monkeypatch, count, workers):
    monkeypatch.setattr(mapping, "_ROWS_PER_FILE", 100)
    run(tmp_path, square, count, workers, offset=1)
    parts = [Dataset.from_file(str(path)) for path in sorted(tmp_path.glob("*.arrow"))]
    assert len(parts) >= count / 100
    dataset = concatenate_datasets(parts)
    assert dataset.features == FEATURES
    assert dataset["square"][:] == [x**2 + 1 for x in range(count)]


def test_killed_process_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"killed while squaring.*--preprocessing_num_workers \(now 2\)"):
        run(tmp_path, die, 100, 2)


def test_error_of_a_process_is_raised(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, fail, 100, 2)


def test_processes_end_with_the_program(tmp_path):
    code = f"import pathlib, test_data_mapping as t; t.run(pathlib.Path({str(tmp_path)!r}), t.sleep, 100, 2)"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    program = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    assert wait_for(lambda: len(descendants(program.pid)) == 2, program)
    workers = descendants(program.pid)
    program.kill()
    program.wait()
    limit = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < limit, "a worker outlived the program"
        time.sleep(0.01)
