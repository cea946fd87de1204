"""What the card itself does at most: matrix products, copies within it and copies to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import find_device, take_turns, time_of

SIZE, QUICK_SIZE = 8192, 256  # rows and columns
COPIED, QUICK_COPIED = 2**29, 2**20  # bytes, more than any cache holds
CALLS = 10


def measure(setting: Setting) -> Iterator[Result]:
    """Operations and bytes per second, on random values."""
    size = QUICK_SIZE if setting.quick else SIZE
    rates = [rate / 1e12 for rate in rate_products(setting)]
    yield Result("matrix products in bfloat16", rates, "TFLOP/s", note=f"{size} x {size} by {size} x {size}")
    device = find_device()
    size = QUICK_COPIED if setting.quick else COPIED
    source = torch.randint(256, [size], dtype=torch.uint8, device=device)
    target, copied = torch.empty_like(source), f"{size / 2**20:,.0f} MiB"
    rates = [2 * rate for rate in rate_copies(source, target, setting.repeats)]
    yield Result("copies on the card", rates, "GB/s", note=f"bytes read and bytes written, of {copied}")
    host = source.cpu().pin_memory() if device.type != "cpu" else source.clone()
    rates = rate_copies(host, target, setting.repeats)
    yield Result("copies to the card", rates, "GB/s", note=f"{copied} of pinned memory")


def rate_products(setting: Setting) -> list[float]:
    """Floating-point operations per second of square matrix products in bfloat16, of each repeat."""
    size = QUICK_SIZE if setting.quick else SIZE
    left, right = (torch.randn(size, size, device=find_device(), dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(left)
    seconds = take_turns([partial(time_calls, partial(torch.mm, left, right, out=product))], setting.repeats)[0]
    return [2 * size**3 / each for each in seconds]


def rate_copies(source: torch.Tensor, target: torch.Tensor, repeats: int) -> list[float]:
    """10^9 bytes per second that are copied, of each repeat."""
    copy = partial(target.copy_, source, non_blocking=True)
    return [len(source) / 1e9 / each for each in take_turns([partial(time_calls, copy)], repeats)[0]]


def time_calls(function: partial[object]) -> float:
    """Seconds of one of several calls, which the device gets without a pause."""
    return time_of(lambda: [function() for _ in range(CALLS)]) / CALLS
