"""A run under ZeRO goes on under another stage and with other ranks, its optimizer's state included."""

import shutil

import pytest
import torch
from launching import launch, launcher, load_weights, logged_losses, needs_compiler, train_flags

from data_utils.sample import main as draw_sample

FLAGS = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "no"]


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
    expected = load_weights(whole)
    for name, value in load_weights(resumed).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4)  # anew: differences up to 1e-3
    assert not (resumed / "checkpoints" / ".universal").exists()
