"""`python -m benchmarks gpu`, rehearsed on the CPU; and what runs measurements when they fail, hang or are cut."""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from launching import descendants, is_alive, wait_for

from benchmarks import gpu, report, runner
from benchmarks.__main__ import keep
from benchmarks.gpu.feeding import count_synchronisations, find_idle_share, watch_waiting
from benchmarks.inputs import draw_pairs, write_clip
from benchmarks.results import Record, Result, describe_machine
from benchmarks.setting import Setting

# The others start programs, each of which imports everything, or are what tests/test_benchmarks.py runs, or compile.
FAST = ("gpu.rates", "gpu.steps", "gpu.feeding")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    draw_pairs(folder / "pairs", 40)
    write_clip(folder / "clip", folder / "pairs", tiny=True)
    return Setting(folder / "pairs", folder / "clip", folder, repeats=1, quick=True)


@pytest.fixture
def record():
    return Record(describe_machine(), "drawn", {})


def all_end(pids):
    """Whether the processes end soon: Python's tracker of resources does when those do that it works for."""
    limit = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < limit:
        time.sleep(0.01)
    return not any(map(is_alive, pids))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in gpu.PARTS]
)
def test_each_part_leaves_its_figures(setting, name):
    AcceleratorState._reset_state(reset_partial_state=True)
    module, _, function = gpu.PARTS[name][0].partition(":")
    results = list(getattr(importlib.import_module(module), function)(setting))
    assert results
    for result in results:
        assert result.values, result.note
        assert min(result.values) >= 0
    AcceleratorState._reset_state(reset_partial_state=True)


def test_figures_are_kept_one_by_one_and_what_fails_or_dies_stops_no_other(tmp_path, record):
    names = ("measure", "count_kept", "fail", "die", "measure")
    targets = {f"{number} {name}": (f"benchmark_parts:{name}", 60.0) for number, name in enumerate(names)}
    for name, result in runner.run_all(targets, tmp_path, ahead=True):
        keep(name, result, record, tmp_path)
    (path,) = tmp_path.glob("*.json")
    found = {name: [(each.values, each.note) for each in kept] for name, kept in Record.load(path).results.items()}
    assert found == {
        "0 measure": [([1.0], ""), ([2.0], "")],
        "1 count_kept": [([2.0], "")],
        "2 fail": [([1.0], ""), ([], "failed: ValueError: the first line ... nothing is left")],
        "3 die": [([1.0], ""), ([], "failed: its process ended with -9")],
        "4 measure": [([1.0], ""), ([2.0], "")],
    }
    table = (tmp_path / "table.md").read_text()
    assert "| 2 fail | not measured |" in table
    assert "2 fail: failed: ValueError: the first line ... nothing is left." in table


def test_what_hangs_is_cut_with_all_it_started_and_what_comes_late_is_left_out(tmp_path):
    targets = {"hang": ("benchmark_parts:hang", 0.5), "late": ("benchmark_parts:measure", 60.0)}
    found = list(runner.run_all(targets, tmp_path, end=time.monotonic() + runner.LEAST_SECONDS + 0.5))
    (_, started), (_, cut), (_, left_out) = found
    assert all_end([int(started.values[0])])
    assert (cut.name, cut.values, cut.note[:9]) == ("hang", [], "cut after")
    assert left_out == Result("late", [], "", note="left out, as the time was over")


def test_records_of_one_card_are_put_together_by_the_report(tmp_path, record):
    machine = record.machine | {"gpus": ["NVIDIA H100 80GB HBM3"]}
    missing, slow, fast = (Result("memory", values, "GiB") for values in ([], [9.0], [7.0]))
    first = {"gpu.rates": [fast], "gpu.memory": [slow], "gpu.sweep": [missing]}
    second = {"gpu.rates": [missing], "gpu.memory": [fast], "gpu.feeding": [missing]}
    for name, results in (("a", first), ("b", second)):
        replace(record, machine=machine, results=results).save(tmp_path / name)
    report.add_records(sorted(tmp_path.glob("?/*.json")), tmp_path / "machines")
    (path,) = (tmp_path / "machines").iterdir()
    assert path.stem == "1x-nvidia-h100-80gb-hbm3"
    kept = Record.load(path)
    assert kept.results == {
        "gpu.rates": [fast],
        "gpu.memory": [fast],
        "gpu.feeding": [missing],
        "gpu.sweep": [missing],
    }
    assert "NVIDIA H100 80GB HBM3" in report.format_report([kept])


def test_waiting_is_the_time_that_no_span_covers():
    assert find_idle_share([(4.0, 5.0), (0.0, 2.0), (1.0, 3.0), (1.0, 2.0)]) == pytest.approx(1 / 5)
    assert find_idle_share([]) is None
    shares = []
    with watch_waiting(shares):
        torch.randn(64, 64) @ torch.randn(64, 64)
    assert 0 <= shares[0] < 1


def test_synchronisations_are_counted_by_their_warnings():
    counts = []
    for count in (2, 0):
        with count_synchronisations(counts):
            for _ in range(count):
                torch.warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    assert counts == [2, 0]


def quick_call(folder, *names):
    """Command and environment of a rehearsal whose figures go into out/ of a folder."""
    command = [sys.executable, "-m", "benchmarks", *names, "--quick", "--repeats", "1", "--seconds", "1800"]
    words = ["--work_dir", str(folder / "work"), "--output_dir", str(folder / "out")]
    return [*command, *words], os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_whole_call_on_the_cpu_leaves_a_value_for_each_part(tmp_path):
    command, environment = quick_call(tmp_path, "gpu")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "out").glob("*.json")
    assert list(json.loads(path.read_text())["results"]) == list(gpu.PARTS)


@pytest.mark.slow
def test_call_that_is_ended_leaves_its_figures_and_no_process(tmp_path):
    command, environment = quick_call(tmp_path, "gpu.rates", "gpu.steps", "gpu.feeding")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: (tmp_path / "out" / "table.md").exists(), process)
    started = descendants(process.pid)
    process.terminate()
    assert process.wait() == 143
    assert all_end(started)
    (path,) = (tmp_path / "out").glob("*.json")
    assert Record.load(path).results["gpu.rates"][0].values
