"""The measurements run in their quick form, and what they measured stays won: counts and wide ratios, never times."""

import json
import time

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from tiny import IMAGE_SIZE, TOKENIZER, tiny_model

from benchmarks import evaluation, features, naive, options, step
from benchmarks.inputs import draw_pairs, write_clip
from benchmarks.report import format_report
from benchmarks.results import Record, Result, describe_machine
from benchmarks.setting import Setting
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from evaluation.predict.inference import classify, plan_batches, run_inference

NUM_ROWS = 300


@pytest.fixture(autouse=True)
def _fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    draw_pairs(folder / "pairs", 40)
    write_clip(folder / "clip", folder / "pairs", tiny=True)
    return Setting(folder / "pairs", folder / "clip", folder, repeats=2, quick=True)


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


def best_ratio(side, other, turns=5):
    """How many times longer `other` takes than `side`, each at its best; in processor time, whatever the load is."""

    def seconds(function):
        begin = time.process_time()
        function()
        return time.process_time() - begin

    times = [(seconds(side), seconds(other)) for _ in range(turns)]
    return min(time for _, time in times) / min(time for time, _ in times)


@pytest.mark.parametrize("module", [step, naive, evaluation, features, options])
def test_quick_measurement_gives_figures_and_a_table(setting, module):
    results = module.measure(setting)
    record = Record(describe_machine(), "drawn", {"name": results})
    report = format_report([record])
    for result in results:
        assert len(result.values) == len(result.against_values) == setting.repeats
        assert min(result.values + result.against_values) > 0
        assert f"| {result.name} |" in report
        assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


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
    assert "| step | training | at least 0.95 | 0.99 | 0.96 | **0.9** |" in format_report(records)


def test_turns_take_batches_from_all_over_the_epoch():
    turns = options.deal_batches([[number] for number in range(20)], 5)
    dealt = [options.plan_rows(next(turns)) for _ in range(5)]
    assert dealt[0] == dealt[4] == [0, 4, 8, 12, 16]
    assert sorted(row for rows in dealt[:4] for row in rows) == list(range(20))


def test_grouped_lengths_pad_less_than_random_order_over_the_same_rows(setting):
    assert options.count_padding([[0, 1], [2]], [2, 4, 7]) == pytest.approx(2 / 15)
    with setting.assemble(*options.ONE_STEP, "--val_ratio", "0", "--per_device_train_batch_size", "2") as (
        trainer,
        prepared,
    ):
        grouped, random = (options.plan_epoch(trainer, strategy) for strategy in ("group_by_length", "random"))
    assert sorted(options.plan_rows(grouped)) == sorted(options.plan_rows(random)) == list(range(len(prepared.train)))
    lengths = BatchReader(prepared.train).lengths
    assert options.count_padding(grouped, lengths) < options.count_padding(random, lengths)


@pytest.mark.slow
def test_without_a_compiler_the_compiled_steps_are_left_out_and_a_note_says_so(setting, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nonexistent/g++",))
    monkeypatch.setattr(options, "QUICK_BACKEND", "inductor")
    results = options.measure(setting)
    assert len(results) == 2
    assert "--torch_compile is left out" in results[-1].note
    assert "No working C++ compiler" in results[-1].note


def test_batches_are_read_several_times_faster_than_rows(rows):
    dataset, collator = rows
    reader, order = BatchReader(dataset), np.random.default_rng(0).permutation(NUM_ROWS).reshape(-1, 20).tolist()

    def read_rows():
        for batch in order:
            collator([dataset[row] for row in batch])

    def read_batches():
        for batch in order:
            collator(reader.__getitems__(batch))

    assert best_ratio(read_batches, read_rows) > 3


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
