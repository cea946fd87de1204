"""Copies between the host and an accelerator, for which neither waits."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor


def can_pin() -> bool:
    """Whether there is an accelerator that copies from pinned memory by itself (Apple's shares the host's).

    Not for a launch on the CPU (cpu.yaml): pinning would wake a GPU that is to be left alone.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return False
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is not None and device.type != "mps"


def fetch(values: Tensor) -> Callable[[], Tensor]:
    """Begin to copy; what is returned waits for the copy, and for nothing that was queued after it, and gives it.

    The copy lies in pinned memory, of which there is little: keep none of any size.
    """
    host = values.detach().to("cpu", non_blocking=True)
    if values.device.type == "cpu":
        return lambda: host
    arrival = torch.accelerator.current_stream(values.device).record_event()

    def wait() -> Tensor:
        arrival.synchronize()
        return host

    return wait
