"""The scripts for a GPU machine without a network, with a stand-in for its Python."""

import os
import shutil
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = ROOT / "launchers" / "gpu"


@pytest.fixture
def run_script(tmp_path):
    """Run a script, in a copy of the repository, whose Python is the given lines of sh; returns the ended process."""
    (tmp_path / "wheels").mkdir()
    copy = shutil.copytree(SCRIPTS, tmp_path / "copy" / "launchers" / "gpu")

    def run(name, *words, python):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{python}\n")
        program.chmod(0o755)
        environment = os.environ | {"PYTHON": str(program)}
        command = ["bash", str(copy / name), *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(("tests", "benchmarks", "code"), [(0, 0, 0), (1, 0, 1), (0, 3, 1), (5, 2, 1)])
def test_both_are_run_and_logged_whatever_the_first_one_gives(run_script, tmp_path, tests, benchmarks, code):
    python = f"""case "$2" in
        pip) ;;
        pytest) echo tested in "$PWD" with "$PYTHONPATH"; exit {tests};;
        benchmarks) echo measured "$@"; exit {benchmarks};;
    esac"""
    done = run_script("run.sh", "wheels", "out", python=python)
    assert done.returncode == code
    logs = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert f"tested in {tmp_path / 'copy'} with {tmp_path / 'copy'}/runs/packages" in logs["tests.log"]
    assert f"gpu --output_dir {tmp_path / 'out'}" in logs["benchmarks.log"]
    assert f"tests {tests}, benchmarks {benchmarks}" in done.stdout


def test_wheels_are_installed_once_and_others_anew(run_script, tmp_path):
    for wheels in (["a"], ["a"], ["a", "b"]):
        for wheel in wheels:
            (tmp_path / "wheels" / f"{wheel}.whl").touch()
        run_script("run.sh", "wheels", "out", python='[ "$2" != pip ] || echo "$@" >> installed')
    first, second = (tmp_path / "copy" / "installed").read_text().splitlines()
    assert "b.whl" not in first
    assert second.startswith("-m pip install")
    assert second.endswith(f"{tmp_path / 'wheels' / 'a.whl'} {tmp_path / 'wheels' / 'b.whl'}")


def test_what_takes_too_long_is_ended_and_the_next_one_runs(run_script, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_SECONDS", "0.2")
    done = run_script("run.sh", "wheels", "out", python='echo "$2"; case "$2" in pytest) exec sleep 60;; esac')
    assert done.returncode == 1
    assert "tests 124, benchmarks 0" in done.stdout
    assert (tmp_path / "out" / "benchmarks.log").read_text() == "benchmarks\n"


def test_every_wheel_of_the_list_is_asked_for(run_script, tmp_path):
    # The last word is the file of requirements.
    done = run_script(
        "gather_wheels.sh", "wheels", python='for word; do :; done; cat "$word" >> asked; touch wheels/a.whl'
    )
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sorted(asked) == sorted((SCRIPTS / "missing.txt").read_text().splitlines())
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["a.whl"]


def read_lists(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return {name.replace("-", "_"): pin for name, _, pin in (line.partition("==") for line in lines if line)}


def test_the_machine_has_or_is_brought_what_the_program_requires():
    has, brought = (read_lists(f"launchers/gpu/{name}.txt") for name in ("machine", "missing"))
    required = read_lists("requirements.txt")
    assert required.keys() <= has.keys() | brought.keys()
    assert not has.keys() & brought.keys()
    assert {name: brought[name] for name in required.keys() & brought.keys()}.items() <= required.items()
