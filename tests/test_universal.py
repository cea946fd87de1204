"""A run under ZeRO goes on under another stage and with other ranks, its optimizer's state included."""

import shutil

import pytest
import torch
from launching import launch, launcher, load_weights, logged_losses, needs_compiler, train_flags
from safetensors.torch import load_file

from data_utils.sample import main as draw_sample

FLAGS = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2"]
# The loss falls, so the "best" is the earlier checkpoint, which the other launch wrote.
FLAGS += ["--eval_strategy", "steps", "--eval_steps", "2", "--metric_for_best_model", "loss"]
FLAGS += ["--greater_is_better", "True"]


@needs_compiler
@pytest.mark.parametrize(("before", "after"), [(("zero2", 2), ("zero3", 1)), (("zero2", 1), ("zero3", 2))])
def test_optimizer_goes_on_in_another_layout(before, after, tmp_path):
    sample, whole, resumed = (tmp_path / name for name in ("pairs", "whole", "resumed"))
    draw_sample(["--output_dir", str(sample), "--num_pairs", "44", "--num_test", "1"])

    def flags(run, ranks):
        return train_flags(sample, run, *FLAGS, "--per_device_train_batch_size", str(8 // ranks))

    launch(launcher(*before), *flags(whole, before[1]))
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "checkpoint-4")
    screen = launch(launcher(*after), *flags(resumed, after[1]), "--resume_from_checkpoint", "latest")
    assert "was converted" in screen
    assert "starts anew" not in screen
    assert logged_losses(resumed) == pytest.approx(logged_losses(whole), abs=1e-6)
    last, expected = (load_file(run / "checkpoints" / "checkpoint-4" / "model.safetensors") for run in (resumed, whole))
    for name, value in last.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4)  # anew: differences up to 1e-3
    best = load_file(whole / "checkpoints" / "checkpoint-2" / "model.safetensors")
    assert [name for name, value in load_weights(resumed).items() if not torch.equal(value, best[name])] == []
    assert not (resumed / "checkpoints" / ".universal").exists()
