"""Single operations: what modeling/ does in other ways than torch would, each against its way; what a card can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import Result
from benchmarks.runner import find_device, take_turns, time_of
from benchmarks.setting import Setting
from data_utils.system.processes import keep_freed_memory
from modeling.kernels import PatchConv2d, attend

# Batch, heads, tokens, width of a head: CLIP's texts and pictures at batch 8, DINOv2's pictures.
ATTENTION_SHAPES = {"texts of 24": (8, 8, 24, 64), "50 patches": (8, 12, 50, 64), "257 patches": (8, 6, 257, 64)}
Way = Callable[[int], object]  # does it so many times, forward and backward
PATCH_SHAPES = {"32 px, width 768": (32, 768), "14 px, width 384": (14, 384)}


def measure(setting: Setting) -> Iterator[Result]:
    """Calls per second of attention, patches and the allocation of a large gradient, forward and backward."""
    keep_freed_memory()

    def judge(name: str, against: str, ways: Sequence[Way]) -> Result:
        ours, theirs = _rate(ways, setting.steps(20), setting.repeats)
        return Result(name, ours, "calls/s", against, theirs, target=1.0)

    for name, shape in ATTENTION_SHAPES.items():
        inputs = [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(4)]
        calls = (partial(_attend, way, *inputs) for way in (attend, F.scaled_dot_product_attention))
        yield judge(
            f"attention in bfloat16, {name}", "torch's fused kernel", [partial(_repeat, call) for call in calls]
        )
    for name, (size, width) in PATCH_SHAPES.items():
        pixels = torch.rand(8, 3, 224, 224)
        layers = (kind(3, width, size, size) for kind in (PatchConv2d, nn.Conv2d))
        ways = [partial(_repeat, partial(_embed, layer, pixels)) for layer in layers]
        yield judge(f"patches in bfloat16, {name}", "convolution", ways)
    # In processes of their own: what one way leaves free in a process serves the other way, too.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn, keep_freed_memory) as kept, ProcessPoolExecutor(1, spawn) as given_back:
        pools = [partial(_allocate_in, pool) for pool in (kept, given_back)]
        yield judge("gradient of 101 MB, memory kept", "given back", pools)


def _rate(ways: Sequence[Way], calls: int, repeats: int) -> list[list[float]]:
    def rate(way: Way) -> float:
        return calls / time_of(partial(way, calls))

    return take_turns([partial(rate, way) for way in ways], repeats)


def _repeat(function: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        function()


def _attend(attention: Callable[..., Tensor], *inputs: Tensor) -> None:
    attention(*inputs[:3]).backward(inputs[3])


def _embed(layer: nn.Conv2d, pixels: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        embedded = layer(pixels)
    embedded.backward(torch.ones_like(embedded))


def _allocate_in(pool: ProcessPoolExecutor, calls: int) -> None:
    pool.submit(_repeat, _allocate, calls).result()


def _allocate() -> None:
    torch.zeros(49_408, 512).add_(1)  # CLIP's table of tokens, whose gradient each step makes


def measure_rates(setting: Setting) -> Iterator[Result]:
    """What the card does at most: matrix products, copies within it and copies to it, of random values."""
    products = [rate / 1e12 for rate in rate_products(setting)]
    yield Result("matrix products in bfloat16", products, "TFLOP/s", note="of 8,192 rows and columns")
    source = torch.randint(256, [2**20 if setting.quick else 2**29], dtype=torch.uint8, device=find_device())
    target, host = torch.empty_like(source), source.cpu()
    host = host.pin_memory() if source.is_cuda else host
    for where, origin, times, note in (("on", source, 2, "read and written"), ("to", host, 1, "of pinned memory")):
        copies = partial(_repeat, partial(target.copy_, origin, non_blocking=True))
        (rates,) = _rate([copies], 10, setting.repeats)
        values = [times * len(source) / 1e9 * rate for rate in rates]
        yield Result(f"copies {where} the card", values, "GB/s", note=f"bytes {note}, 512 MiB a copy")


def rate_products(setting: Setting) -> list[float]:
    """Floating-point operations per second of square matrix products in bfloat16, of each repeat."""
    size = 256 if setting.quick else 8192
    left, right, product = (torch.randn(size, size, device=find_device(), dtype=torch.bfloat16) for _ in range(3))
    (rates,) = _rate([partial(_repeat, partial(torch.mm, left, right, out=product))], 10, setting.repeats)
    return [2 * size**3 * rate for rate in rates]
