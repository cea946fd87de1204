"""A run folder that is a volume of its own, as in containers: all that a job writes lies in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_files.run_folder import RunFolder
from training.runs.claim import LOCK, MOVING, lock_run, move_aside


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount an empty volume at a folder of this name; only root may."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a volume")
    mounted = []

    def make(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=20m", *options]), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no volume can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_second_run_in_a_volume_moves_the_first_one_inside_of_it(run_train, mount, tmp_path):
    run = mount("run")
    (run / "lost+found").mkdir()  # as in a fresh volume
    before = sorted(tmp_path.iterdir())
    flags = ["--fusion", "late", "--save_strategy", "no", "--max_steps", "1"]
    run_train(*flags)
    kept = (run / "config.yaml").read_text()
    _, screen = run_train(*flags, "--seed", "3")
    assert (run / "old-1" / "config.yaml").read_text() == kept
    assert f"which is now in {run / 'old-1'}" in screen
    run_train(*flags)
    assert (run / "old-2" / "model" / "model.safetensors").is_file()
    assert set(tmp_path.iterdir()) - set(before) == {tmp_path / "cache"}


def test_read_only_volumes_are_told_in_one_sentence(run_train, mount, capfd):
    run = mount("run", "ro")
    for flags in (["--max_steps", "1"], ["--max_steps", "1", "--resume_from_checkpoint", "latest"]):
        with pytest.raises(SystemExit) as ending:
            run_train(*flags)
        assert ending.value.code == 2
        (sentence,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert f"{run / LOCK} (Read-only file system); name a folder that may be written to" in sentence


def test_lock_leaves_nothing_behind_and_a_refused_folder_goes(tmp_path):
    run = RunFolder(tmp_path / "run")
    with lock_run(run):
        assert (run.path / LOCK).exists()
    assert not run.path.exists()
    run.path.mkdir()
    run.config_file.write_text("x")
    with lock_run(run):
        pass
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_killed_while_an_earlier_run_was_moved_loses_nothing(tmp_path):
    run = RunFolder(tmp_path / "run")
    (run.path / MOVING).mkdir(parents=True)
    (run.path / MOVING / "metrics.json").write_text("first")
    run.config_file.write_text("first")
    run.metrics_file.write_text("second")
    move_aside(run.path)
    assert list(run.path.iterdir()) == []
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "run.old-1/metrics.json": "first",
        "run.old-2/config.yaml": "first",
        "run.old-2/metrics.json": "second",
    }
