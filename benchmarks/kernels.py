"""What modeling/ does in other ways than torch and transformers would by themselves, each against their way."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import compare, time_of
from data_utils.system import memory
from modeling.kernels import PatchConv2d, attend

CALLS = 20
# Batch, heads, tokens, width of a head: CLIP's texts and pictures at batch 8, DINOv2's pictures.
ATTENTION_SHAPES = {"texts of 24": (8, 8, 24, 64), "50 patches": (8, 12, 50, 64), "257 patches": (8, 6, 257, 64)}
PATCH_SHAPES = {"32 px, width 768": (32, 768), "14 px, width 384": (14, 384)}
ROWS, WIDTH = 49_408, 512  # CLIP's table of tokens, whose gradient is filled with zeros in each step


def measure(setting: Setting) -> list[Result]:
    """Calls per second of attention, patches and the allocation of a large gradient, forward and backward."""
    memory.keep_freed_memory()
    calls = setting.steps(CALLS)

    def judge(name: str, against: str, ways: Sequence[Callable[[int], None]]) -> Result:
        sides = [lambda way=way: calls / time_of(lambda: way(calls)) for way in ways]
        return compare(name, "calls/s", against, sides, setting.repeats, target=1.0)

    results = []
    for name, shape in ATTENTION_SHAPES.items():
        ways = [attention_steps(way, shape) for way in (attend, F.scaled_dot_product_attention)]
        results.append(judge(f"attention in bfloat16, {name}", "torch's fused kernel", ways))
    for name, (size, width) in PATCH_SHAPES.items():
        ways = [patch_steps(kind, size, width) for kind in (PatchConv2d, nn.Conv2d)]
        results.append(judge(f"patches in bfloat16, {name}", "convolution", ways))
    with allocating_process(memory.keep_freed_memory) as kept, allocating_process() as given_back:
        results.append(judge("gradient of 101 MB, memory kept", "given back", [kept, given_back]))
    return results


def attention_steps(attention: Callable[..., Tensor], shape: tuple[int, ...]) -> Callable[[int], None]:
    """A function that goes forward and backward through `attention` so many times."""
    query, key, value, gradient = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(4))

    def run(calls: int) -> None:
        for _ in range(calls):
            attention(query, key, value).backward(gradient)

    return run


def patch_steps(kind: type[nn.Conv2d], size: int, width: int) -> Callable[[int], None]:
    """A function that goes forward and backward through a patch embedding of 8 pictures so many times."""
    layer = kind(3, width, size, size)
    pixels = torch.rand(8, 3, 224, 224)

    def run(calls: int) -> None:
        for _ in range(calls):
            with torch.autocast("cpu", torch.bfloat16):
                embedded = layer(pixels)
            embedded.backward(torch.ones_like(embedded))

    return run


@contextmanager
def allocating_process(set_limits: Callable[[], None] | None = None) -> Iterator[Callable[[int], None]]:
    """`allocate` in a process of its own: what one way leaves free in a process serves the other way, too."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=set_limits) as pool:
        yield lambda calls: pool.apply(allocate, (calls,))


def allocate(calls: int) -> None:
    """Make and free a large tensor of zeros so many times."""
    for _ in range(calls):
        torch.zeros(ROWS, WIDTH).add_(1)
