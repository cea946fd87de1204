"""A batch that finds no room: one sentence with what to do, told once, on the CPU here and on the GPU in tests/gpu."""

from __future__ import annotations

import pytest
import torch
from launching import too_large_batch

import train
from data_utils.system.refusals import describe_refusal


def test_a_batch_too_large_for_the_machine_is_one_sentence(make_pairs, tmp_path, capfd):
    with pytest.raises(SystemExit) as ending:
        train.main(too_large_batch(make_pairs, tmp_path / "run"))
    assert ending.value.code == 1
    screen = capfd.readouterr().err
    assert "Traceback" not in screen
    assert [line for line in screen.splitlines() if line.startswith("error: ")] == [
        line for line in screen.splitlines() if "--gradient_accumulation_steps" in line
    ]
    assert screen.count("error: The system refuses what is needed (") == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_full_gpu_is_told_as_such(error):
    sentence = describe_refusal(error)
    assert "The GPU's memory is full" in sentence
    assert "--per_device_train_batch_size" in sentence
