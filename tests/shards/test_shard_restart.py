"""python -m data_utils.shard again: after a kill or damage the same shards, of other data or settings none."""

import json
import os
import subprocess
import sys
import tarfile

import pytest
from conftest import ROOT
from launching import all_end, descendants, wait_for
from shard_reading import content_of

from data_utils.shards import job, write
from data_utils.shards.manifest import MANIFEST
from data_utils.shards.shard_set import find_shards
from modeling.errors import InputError


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_killed_job_goes_on_and_gives_the_same_bytes(write_shards, numbered_rows, monkeypatch, kind):
    rows = numbered_rows(40)
    whole = write_shards(rows, "--shard_format", kind)

    def stop_at_third(plan, original=write.write_shard, done=[]):  # noqa: B006
        done.append(plan)
        if len(done) == 3:
            raise KeyboardInterrupt
        original(plan)

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_shard", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            write_shards(rows, "--shard_format", kind, name="cut")
    cut = whole.with_name("cut")
    with pytest.raises(InputError, match="aren't finished"):
        find_shards(str(cut), "train")
    first = sorted(cut.glob("train-*"))
    times = [path.stat().st_mtime_ns for path in first]
    assert len(first) == 2
    write_shards(rows, "--shard_format", kind, name="cut")
    assert content_of(cut) == content_of(whole)
    assert [path.stat().st_mtime_ns for path in first] == times, "what was there is not written again"


def test_no_process_outlives_a_killed_job(make_pairs, numbered_rows, tmp_path):
    output = tmp_path / "cut"
    words = ["--data_dir", str(make_pairs(numbered_rows(200))), "--output_dir", str(output), "--rows_per_shard", "1"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--preprocessing_num_workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "data_utils.shard", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: any(output.glob("train-*")), process)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    assert all_end(workers, 30), "a process outlived the job"


def test_half_written_file_of_a_killed_job_is_removed(write_shards, numbered_rows):
    rows = numbered_rows(20)
    folder = write_shards(rows)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    names = {"train-00001-of-00003.parquet": killed.pid, MANIFEST: killed.pid, "train-00000.parquet": os.getpid()}
    left = [folder / f".{name}.{process}.0123456789abcdef.tmp" for name, process in names.items()]
    running = folder / f".train-00002-of-00003.parquet.{os.getppid()}.0123456789abcdef.tmp"
    for path in (*left, running):
        path.write_bytes(b"half")
    write_shards(rows)
    assert not any(path.exists() for path in left)
    assert running.exists()


def cut_end(path):
    """Behind the last row: to `tarfile` nothing is missing."""
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    os.truncate(path, last.offset_data + tarfile.BLOCKSIZE)


def cut_details(path):
    """Behind the text of the last row; the rest is filled up with zeros, as a machine that dies may leave it."""
    size = path.stat().st_size
    with tarfile.open(path) as archive:
        start = archive.getmembers()[-1].offset
    os.truncate(path, start)
    os.truncate(path, size)


def exchange(path):
    """For another whole shard of as many rows."""
    path.write_bytes(path.with_name(path.name.replace("-00001-", "-00000-")).read_bytes())


@pytest.mark.parametrize(
    ("kind", "damage", "reason", "finished"),
    [
        ("parquet", lambda path: os.truncate(path, 1000), "1000 bytes instead of", True),
        ("parquet", lambda path: os.truncate(path, 0), "ArrowInvalid", False),
        ("parquet", exchange, "bytes instead of", True),
        ("webdataset", lambda path: os.truncate(path, 1000), "1000 bytes instead of", True),
        ("webdataset", lambda path: os.truncate(path, 1000), "unexpected end of data", False),
        ("webdataset", lambda path: os.truncate(path, 0), "ReadError: empty file", False),
        ("webdataset", cut_end, "neither a file nor the archive's end", False),
        ("webdataset", cut_details, "its end is missing", False),
        ("webdataset", lambda path: os.truncate(path, path.stat().st_size - 512), "its end is missing", False),
    ],
)
def test_damaged_shard_is_written_again(
    write_shards, numbered_rows, caplog, monkeypatch, kind, damage, reason, finished
):
    """Also if the job that noticed it is killed before it was written again."""
    rows = numbered_rows(40)
    folder = write_shards(rows, "--shard_format", kind)
    expected = content_of(folder)
    path = sorted(folder.glob("train-*"))[1]
    damage(path)
    assert path.read_bytes() != expected[path.name]
    if not finished:
        cut = json.loads(expected[MANIFEST]) | {"complete": False, "parts": {}}
        (folder / MANIFEST).write_text(json.dumps(cut))
    with monkeypatch.context() as patch:
        patch.setattr(job, "write_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_shards(rows, "--shard_format", kind)
    caplog.clear()
    with caplog.at_level("INFO", logger="data_utils.shard"):
        write_shards(rows, "--shard_format", kind)
    assert f"{path} is damaged and is written again" in caplog.text
    assert reason in caplog.text
    assert f"{len(expected) - 4} of {len(expected) - 3} shards are there already" in caplog.text
    assert content_of(folder) == expected


def interrupt(plan):
    raise KeyboardInterrupt


def test_other_settings_or_data_are_refused(write_shards, numbered_rows, capsys):
    rows = numbered_rows(30)
    folder = write_shards(rows)
    other = "holds shards of other data or settings"
    for changed, *flags in ((rows, "--seed", "7"), (rows, "--rows_per_shard", "9"), ([*rows, ("new", "positive")],)):
        write_shards(changed, *flags, code=2)
        assert other in capsys.readouterr().err
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sha256"]  # as another program may write it
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert find_shards(str(folder), "train") is not None
    write_shards(rows, code=2)
    assert other in capsys.readouterr().err
    (folder / MANIFEST).write_text("{}")
    write_shards(rows, code=2)
    assert "shards.json has no complete" in capsys.readouterr().err
    (folder / MANIFEST).unlink()
    write_shards(rows, code=2)
    assert "holds other files" in capsys.readouterr().err
