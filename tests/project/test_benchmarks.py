"""The measurements run in their quick form, and what they measured stays won: counts and wide ratios, never times."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import ROOT
from datasets import Dataset
from fake_parts import die, fail, give_two, hang
from launching import all_end, descendants, wait_for
from tiny import IMAGE_SIZE, TOKENIZER, tiny_model

from benchmarks import data
from benchmarks.__main__ import GPU_PARTS, PARTS, keep
from benchmarks.parts import Part, run_parts
from benchmarks.report import Record, Result, describe_machine, format_figure, format_report, merge_records
from benchmarks.setting import Setting, draw_pairs, write_clip
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from evaluation.predict.inference import classify, plan_batches, run_inference

NUM_ROWS = 300
# The others start programs, each of which imports everything, or compile; the slow test of the whole call runs them.
FAST = ("reading", "step", "evaluation", "features", "gpu.rates", "gpu.feeding")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    draw_pairs(folder / "pairs", 40)
    write_clip(folder / "clip", folder / "pairs", tiny=True)
    return Setting(folder / "pairs", folder / "clip", folder, quick=True)


@pytest.mark.parametrize("name", FAST)
def test_quick_part_gives_figures_and_a_table(setting, name):
    AcceleratorState._reset_state(reset_partial_state=True)
    results = list((PARTS | GPU_PARTS)[name].measure(setting))
    AcceleratorState._reset_state(reset_partial_state=True)
    report = format_report([Record(describe_machine(), "drawn", {name: results})])
    for result in results:
        assert len(result.values) == setting.repeats, result.note
        assert min(result.values) >= 0
        assert bool(result.against) == (len(result.ratios) == setting.repeats)
        assert f"| {format_figure(result)[0]} |" in report


def call(folder, *names):
    """Command and environment of a rehearsal whose figures go into out/ of a folder."""
    words = ["--quick", "--seconds", "1800", "--work_dir", str(folder / "work"), "--output_dir", str(folder / "out")]
    return [sys.executable, "-m", "benchmarks", *names, *words], os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("names", "parts"), [((), PARTS), (("gpu",), GPU_PARTS)])
def test_whole_call_on_the_cpu_leaves_a_value_for_each_part(tmp_path, names, parts):
    command, environment = call(tmp_path, *names)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "out").glob("*.json")
    found = Record.load(path).results
    assert list(found) == list(parts)
    if "memory" in found:  # of 100 times the rows
        assert found["memory"][0].values[0] < 1.1


@pytest.mark.slow
def test_call_that_is_ended_leaves_its_figures_and_no_process(tmp_path):
    command, environment = call(tmp_path, "gpu.rates", "gpu.steps", "gpu.feeding")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: (tmp_path / "out" / "table.md").exists(), process)
    started = descendants(process.pid)
    process.terminate()
    assert process.wait() == 143
    assert all_end(started)
    (path,) = (tmp_path / "out").glob("*.json")
    assert Record.load(path).results["gpu.rates"][0].values


def test_figures_are_kept_one_by_one_and_what_fails_dies_or_hangs_stops_no_other(tmp_path):
    record = Record(describe_machine(), "drawn", {})
    parts = {each.__name__: Part(each, 1.0 if each is hang else 60.0) for each in (fail, die, hang, give_two)}
    for name, result in run_parts(parts, tmp_path):
        keep(name, result, record, tmp_path)
    (path,) = tmp_path.glob("*.json")
    found = Record.load(path).results
    assert found == record.results
    assert [len(each) for each in found.values()] == [2, 2, 2, 2]
    assert found["fail"][1] == Result("fail", [], "", note="failed: ValueError: the first line ... nothing is left")
    assert "ended" in found["die"][1].note
    assert found["hang"][1].note.endswith("after 1 s")
    assert all_end([int(found["hang"][0].values[0])])
    assert found["give_two"][1].values[0] >= 6  # those of the parts before it
    assert "| fail | fail |  | not measured |" in (tmp_path / "table.md").read_text()


def test_what_comes_late_is_left_out(tmp_path):
    ((_, result),) = run_parts({"late": Part(hang)}, tmp_path, seconds=0.0)
    assert not result.values


def test_target_is_judged_by_the_median_ratio():
    met = Result("a", [10.0, 8.0, 30.0], "rows/s", "b", [10.0, 10.0, 10.0], target=0.95)
    assert (met.judged, met.is_met) == (1.0, True)
    assert not Result("a", [4.0, 2.0, 9.0], "s", target=3.0, at_least=False).is_met
    assert Result("a", [1.0], "s").is_met is None


def test_each_machine_keeps_its_figures_and_the_report_sets_them_side_by_side(tmp_path):
    def record(cpu, rate, **facts):
        result = Result("training", [rate], "rows/s", "bare steps", [10.0], target=0.95)
        return Record(describe_machine() | {"cpu": cpu, "cores": 2, "gpus": []} | facts, "drawn", {"step": [result]})

    for machine in [record("A (R) 1", 1.0), record("B", 9.0), record("A (R) 1", 9.6), record("A", 9.9, gpus=["H 100"])]:
        machine.save(tmp_path)
    records = [Record.load(path) for path in sorted(tmp_path.glob("*.json"))]
    assert len(records) == 3
    assert records[0] == record("A", 9.9, gpus=["H 100"])
    cells = ["0.99 [0.99, 0.99]; 9.9 rows/s", "0.96 [0.96, 0.96]; 9.6 rows/s", "**0.9** [0.9, 0.9]; 9 rows/s"]
    assert f"| at least 0.95 | {' | '.join(cells)} |" in format_report(records)


def test_records_of_one_card_are_put_together():
    machine = describe_machine() | {"gpus": ["NVIDIA H100 80GB HBM3"]}
    missing, slow, fast = (Result("memory", values, "GiB") for values in ([], [9.0], [7.0]))
    first = Record(machine, "drawn", {"gpu.rates": [fast], "gpu.memory": [slow], "gpu.sweep": [missing]})
    second = replace(first, results={"gpu.rates": [missing], "gpu.memory": [fast], "gpu.feeding": [missing]})
    merged = merge_records([first, second])
    assert list(merged) == ["1x-nvidia-h100-80gb-hbm3"]
    expected = {"gpu.rates": [fast], "gpu.memory": [fast], "gpu.feeding": [missing], "gpu.sweep": [missing]}
    assert merged["1x-nvidia-h100-80gb-hbm3"].results == expected


def test_waiting_is_the_time_that_no_span_covers_and_synchronisations_are_counted_by_their_warnings():
    assert data.find_idle_share([(4.0, 5.0), (0.0, 2.0), (1.0, 3.0), (1.0, 2.0)]) == pytest.approx(1 / 5)
    found = []
    for count in (2, 0):
        with data.watch(found):
            torch.randn(64, 64) @ torch.randn(64, 64)
            for _ in range(count):
                torch.warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    assert [waits for waits, _ in found] == [2, 0]
    assert all(0 <= share < 100 for _, share in found)


@pytest.fixture
def rows():
    """Tokenised rows of random length and pictures, and their collator."""
    rng = np.random.default_rng(0)
    columns = {
        "input_ids": [rng.integers(5, len(TOKENIZER), rng.integers(2, 16)).tolist() for _ in range(NUM_ROWS)],
        "image": [rng.bytes(3 * IMAGE_SIZE**2) for _ in range(NUM_ROWS)],
        "text_present": [True] * NUM_ROWS,
        "image_present": [True] * NUM_ROWS,
        "label": [row % 3 for row in range(NUM_ROWS)],
        "row_index": list(range(NUM_ROWS)),
    }
    return Dataset.from_dict(columns), PairCollator(TOKENIZER.pad_token_id, IMAGE_SIZE)


def test_batches_are_read_several_times_faster_than_rows(rows):
    """By processor time, whatever the load is."""
    dataset, collator = rows
    reader, order = BatchReader(dataset), np.random.default_rng(0).permutation(NUM_ROWS).reshape(-1, 20).tolist()

    def seconds(read):
        begin = time.process_time()
        for batch in order:
            collator(read(batch))
        return time.process_time() - begin

    by_rows = min(seconds(lambda batch: [dataset[row] for row in batch]) for _ in range(5))
    assert by_rows > 3 * min(seconds(reader.__getitems__) for _ in range(5))


def test_inference_pads_little_and_changes_no_row(rows):
    dataset, collator = rows
    reader = BatchReader(dataset)
    batches = [collator(reader.__getitems__(batch)) for batch in plan_batches(reader, 32)]
    assert sorted(torch.cat([batch["row_index"] for batch in batches]).tolist()) == list(range(NUM_ROWS))
    computed = sum(batch["input_ids"].numel() for batch in batches)
    assert computed < 1.1 * reader.lengths.sum()

    model = tiny_model().eval()
    found = run_inference(model, dataset, collator, batch_size=32, accelerator=Accelerator(cpu=True), step=classify)
    with torch.no_grad():
        expected = classify(model, collator(reader.__getitems__(range(NUM_ROWS))))
    torch.testing.assert_close(found["probabilities"], expected["probabilities"])
