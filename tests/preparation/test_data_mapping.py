"""map_to_folder: rows in order from any number of processes, and no process that outlives the program."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from datasets import Dataset, Features, Value, concatenate_datasets
from launching import all_end

from data_utils.prepare import mapping
from data_utils.prepare.mapping import map_to_folder
from modeling.errors import InputError

SQUARES, WORDS = Features({"square": Value("int64")}), Features({"word": Value("binary")})


def square(rows, offset):
    return {"square": [x**2 + offset for x in rows]}


def spell(rows):
    return {"word": [None if x % 3 == 1 else bytes([x % 256]) * (x % 7) for x in rows]}


def name_process(rows):
    return {"square": [os.getpid()] * len(rows)}


def die(rows):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(rows):
    raise OSError(28, "No space left on device")


def sleep(rows, started):
    Path(started, str(os.getpid())).touch()
    time.sleep(60)


def run(folder, function, count, workers, *, features=SQUARES, rows_per_worker=32, **options):
    folder.mkdir(exist_ok=True)
    map_to_folder(
        range(count),
        partial(function, **options),
        folder=folder,
        features=features,
        description="Squaring",
        num_workers=workers,
        rows_per_worker=rows_per_worker,
        batch_size=32,
    )
    return concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))])


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (300, 1), (300, 3)])
def test_rows_come_in_order_and_nothing_stays_behind(tmp_path, monkeypatch, capfd, count, workers):
    monkeypatch.setattr(mapping, "_ROWS_PER_FILE", 70)
    dataset = run(tmp_path, square, count, workers, offset=1)
    assert dataset.features == SQUARES
    assert dataset["square"][:] == [x**2 + 1 for x in range(count)]
    assert len(list(tmp_path.iterdir())) == {(1, 2): 1, (300, 1): 5, (300, 3): 10}[count, workers]
    assert not multiprocessing.active_children()
    told = capfd.readouterr().err
    assert f"Squaring: {count} of {count} rows" in told
    assert "\r" not in told


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_come_as_they_were_given(tmp_path, workers):
    dataset = run(tmp_path, spell, 100, workers, features=WORDS)
    assert dataset["word"][:] == spell(range(100))["word"]
    dataset.data.table.validate(full=True)


def test_processes_are_started_where_rows_are_many(tmp_path):
    few, many = (
        set(run(tmp_path / str(rows), name_process, 300, 2, rows_per_worker=rows)["square"]) for rows in (200, 100)
    )
    assert few == {os.getpid()}
    assert os.getpid() not in many


def test_killed_process_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"killed while squaring.*--preprocessing_num_workers \(now 2\), then start"):
        run(tmp_path, die, 100, 2)


def test_error_of_a_process_is_raised_when_none_writes_any_more(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, fail, 100, 2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_program(tmp_path, number):
    started = tmp_path / "started"
    started.mkdir()
    program = os.fork()
    if program == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run(tmp_path / "rows", sleep, 100, 2, started=str(started))
        except KeyboardInterrupt:
            os._exit(3)
        finally:
            os._exit(1)
    # Both are at work: Python passes over an interrupt that comes while it is starting a process.
    limit = time.monotonic() + 30
    while len(list(started.iterdir())) < 2:
        assert time.monotonic() < limit
        time.sleep(0.01)
    workers = [int(path.name) for path in started.iterdir()]
    os.kill(program, number)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    assert code == (3 if number == signal.SIGINT else -number)
    assert all_end(workers, 30), "a process outlived the program"
