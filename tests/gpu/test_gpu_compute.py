"""Training on a GPU: its precisions, ways to save memory, resumes bit for bit, and what an update waits for."""

import json
import warnings
from collections import Counter

import pytest
import torch
from launching import TINY, launch, launcher, list_steps, load_weights, logged_losses, needs_compiler, needs_cuda

pytestmark = pytest.mark.gpu

UPDATES = ["--max_steps", "12", "--eval_strategy", "no", "--learning_rate", "3e-3"]
HALFWAY = ["--save_strategy", "steps", "--save_steps", "6"]
DROPOUT = {"attention_dropout": 0.1}
SKIPPING = ["--fp16", "--unimodal_loss_weight", "100"]  # with the scaler's 2 ** 16, gradients beyond float16's 65,504


@pytest.fixture(scope="module")
def plain(train_here, tmp_path_factory):
    """Losses in float32."""
    losses = logged_losses(train_here(tmp_path_factory.mktemp("plain") / "run", *UPDATES, *HALFWAY))
    assert len(set(losses.values())) == 12
    return losses


def checkpoint(run, step):
    return ["--resume_from_checkpoint", str(run / "checkpoints" / f"checkpoint-{step}")]


def test_bfloat16_is_near_float32(train_here, tmp_path, plain):
    run = train_here(tmp_path / "run", *UPDATES, *HALFWAY, "--bf16")
    assert logged_losses(run) == pytest.approx(plain, abs=2e-2)


def test_activation_checkpointing_changes_no_number(train_here, tmp_path, plain):
    run = train_here(tmp_path / "run", *UPDATES, *HALFWAY, "--activation_checkpointing")
    assert logged_losses(run) == pytest.approx(plain, abs=1e-5)


@needs_compiler
def test_compiled_model_gives_the_same_losses(flags, tmp_path, plain):
    """Launched, as the compiler's settings stay in the process, and cold, as it starts helpers by Python's own path.

    --tf32 False holds against accelerate, which would have a compiled model compute in TF32.
    """
    backend = [] if torch.cuda.is_available() else ["--torch_compile_backend", "eager"]
    words = flags(tmp_path / "run", *UPDATES, *HALFWAY, "--torch_compile", *backend)
    launch(launcher("single_gpu"), *words, cold=True)
    assert logged_losses(tmp_path / "run") == pytest.approx(plain, abs=1e-4)


@needs_cuda(reason="float16 is refused on the CPU")
def test_float16_is_near_float32(train_here, tmp_path, plain):
    run = train_here(tmp_path / "run", *UPDATES, *HALFWAY, "--fp16")
    assert logged_losses(run) == pytest.approx(plain, abs=2e-2)


@needs_cuda(reason="float16 is refused on the CPU")
def test_overflow_in_float16_is_skipped_counted_and_survives_a_resume(train_here, tmp_path):
    whole = train_here(tmp_path / "whole", *UPDATES, *HALFWAY, *SKIPPING)
    resumed = train_here(tmp_path / "resumed", *UPDATES, *HALFWAY, *SKIPPING, *checkpoint(whole, 6))
    metrics = [json.loads((run / "metrics.json").read_text())["training"] for run in (whole, resumed)]
    assert metrics[0]["steps"] == metrics[1]["steps"] == 12
    assert 0 < metrics[0]["skipped_steps"] == metrics[1]["skipped_steps"]
    assert all(value.isfinite().all() for value in load_weights(whole).values())
    assert logged_losses(resumed) == pytest.approx(logged_losses(whole), rel=1e-3)
    scales = [torch.load(run / "checkpoints" / "checkpoint-12" / "scaler.pt")["scale"] for run in (whole, resumed)]
    assert scales[0] == scales[1] < 2**16


def test_resume_is_bit_for_bit_with_deterministic_kernels(flags, tmp_path):
    """With dropout: the GPU's random numbers go on too. Launched, as the settings stay in the process."""
    words = [*UPDATES, *HALFWAY, "--full_determinism", "--fusion_dropout", "0.1"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    launch(launcher("single_gpu"), *flags(whole, *words, options=DROPOUT))
    launch(launcher("single_gpu"), *flags(resumed, *words, *checkpoint(whole, 6), options=DROPOUT))
    assert list_steps(resumed) == [12]
    assert logged_losses(resumed) == logged_losses(whole)
    weights, expected = load_weights(resumed), load_weights(whole)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def test_profile_names_the_kernels_of_the_device(train_here, tmp_path):
    run = train_here(tmp_path / "run", *UPDATES, "--save_strategy", "no", "--profile")
    table = (run / "profile" / "table-rank0.txt").read_text()
    assert "aten::addmm" in table
    assert ("Self CUDA" in table) == torch.cuda.is_available()


def count_waits(train_here, folder, updates):
    """Where the host waits for the GPU in a training of so many updates, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rare = ["--logging_steps", "1000", "--eval_strategy", "no", "--save_strategy", "no", "--val_ratio", "0"]
            train_here(folder, *rare, "--max_steps", str(updates), "--bf16")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing" in str(each.message)]
    return Counter(f"{each.filename}:{each.lineno}" for each in waits)


@needs_cuda(reason="a CPU has nothing to wait for")
def test_an_update_waits_for_no_result_of_the_gpu(train_here, tmp_path):
    few, many = (count_waits(train_here, tmp_path / str(updates), updates) for updates in (4, 7))
    assert few, "torch's sync debug mode tells nothing here"
    assert many - few == Counter()


@needs_cuda(reason="the kernels are a GPU's")
@pytest.mark.parametrize("flag", ["--bf16", "--fp16"])
def test_attention_runs_in_a_fused_kernel(train_here, tmp_path, flag):
    towers = TINY | {"hidden_size": 64, "num_attention_heads": 2}
    words = ["--text_config", json.dumps(towers), "--vision_config", json.dumps(towers | {"patch_size": 16})]
    run = train_here(tmp_path / "run", *UPDATES, "--save_strategy", "no", "--profile", flag, *words)
    names = {event["name"] for event in json.loads((run / "profile" / "trace-rank0.json").read_text())["traceEvents"]}
    fused = ("flash", "efficient", "cudnn")
    assert any(f"aten::_scaled_dot_product_{kind}_attention" in names for kind in fused)
    assert any(f"aten::_scaled_dot_product_{kind}_attention_backward" in names for kind in fused)
    assert "aten::_scaled_dot_product_attention_math" not in names
