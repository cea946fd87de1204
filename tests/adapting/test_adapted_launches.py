"""Adapters and averaged weights under every launch: the numbers of one process, whole files, exact resume."""

import numpy as np
import pytest
import torch
from adapting.adapted_runs import RHYTHM, encoder_flags, find_faults, go_back, last_logits, merged_logits
from conftest import ROOT
from launching import launch, launcher, load_weights, logged_losses, needs_compiler, train_flags
from safetensors.torch import load_file
from tiny import save_encoders

import train
from data_utils.sample import main as draw_sample

RANKS = 2
ADAPTERS = ["--lora_rank", "2", "--learning_rate", "1e-2", "--head_learning_rate", "1e-3"]
AVERAGE = ["--ema_decay", "0.9"]
LAUNCHES = {
    "multi_gpu": [*ADAPTERS, *AVERAGE],
    "zero1": [*ADAPTERS, *AVERAGE],
    "zero2": [*ADAPTERS, *AVERAGE],
    "zero3": ADAPTERS,
    "fsdp2": ADAPTERS,
}
PROGRAM = str(ROOT / "tests" / "launches" / "fsdp_program.py")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Sample pairs and two encoders."""
    folder = tmp_path_factory.mktemp("adapted")
    draw_sample(["--output_dir", str(folder / "pairs"), "--num_pairs", "48", "--num_test", "1"])
    save_encoders(folder, dropout=0.0)
    return folder


@pytest.fixture(scope="module")
def reference(workshop):
    """Run folder of one process, with and without an average; made once each."""

    def make(flags):
        run = workshop / f"one-{len(flags)}"
        if not run.exists():
            train.main(words_of(workshop, run, "--per_device_train_batch_size", "8", *flags)[1:])
        return run

    return make


def words_of(workshop, run, *flags):
    steps = [*RHYTHM, "--save_total_limit", "9"]
    return train_flags(workshop / "pairs", run, *steps, *flags, model=encoder_flags(workshop))


def run_ranks(strategy, workshop, run, *flags, **options):
    words = words_of(workshop, run, "--per_device_train_batch_size", "4", *flags)
    if strategy == "fsdp2":  # which train.py refuses on CPUs by itself
        words = [PROGRAM, "train", *words[1:]]
    return launch(launcher(strategy, RANKS), *words, **options)


@needs_compiler
@pytest.mark.parametrize(
    "strategy",
    [name if name == "zero2" else pytest.param(name, marks=pytest.mark.slow) for name in LAUNCHES],
)
def test_strategy_gives_the_numbers_of_one_process_and_goes_on_exactly(strategy, workshop, reference, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    run, flags = workshop / strategy, LAUNCHES[strategy]
    one = reference(flags)
    run_ranks(strategy, workshop, run, *flags)

    assert logged_losses(run) == pytest.approx(logged_losses(one), abs=1e-5)
    weights = load_weights(run)
    for name, value in load_weights(one).items():
        torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=1e-3)
    for kind in ("text", "image"):
        found, expected = (load_file(each / "adapter" / kind / "adapter_model.safetensors") for each in (run, one))
        assert found.keys() == expected.keys()
        assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-4
    assert np.abs(last_logits(run) - merged_logits(run)).max() < 1e-5

    cut = go_back(run, workshop / f"{strategy}-cut", to=3)
    assert "starts anew" not in run_ranks(strategy, workshop, cut, *flags, "--resume_from_checkpoint", "latest")
    assert logged_losses(cut) == logged_losses(run)
    assert find_faults(cut / "checkpoints/checkpoint-6", run / "checkpoints/checkpoint-6") == []
    assert [name for name, value in load_weights(cut).items() if not torch.equal(value, weights[name])] == []


@needs_compiler
@pytest.mark.slow
def test_average_of_deepspeed_in_half_precision_is_saved_in_float32(workshop):
    run = workshop / "half"
    run_ranks("zero2", workshop, run, *AVERAGE, "--bf16", "--learning_rate", "1e-2")
    average = load_file(run / "checkpoints/checkpoint-6/average.safetensors")
    assert any(not torch.equal(value, value.bfloat16().float()) for value in average.values() if value.dim() > 1)
    assert np.abs(last_logits(run) - merged_logits(run)).max() < 5e-2


@pytest.mark.slow
def test_average_of_sharded_weights_is_refused(workshop):
    screen = run_ranks("zero3", workshop, workshop / "refused", *AVERAGE, code=1)
    assert screen.count("Got --ema_decay 0.9, which averages whole weights, and a launch that shards them") == 1
