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
from benchmarks.turns import take_turns, time_of
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
    results = []
    for name, shape in ATTENTION_SHAPES.items():
        sides = [attention_steps(way, shape, calls) for way in (attend, F.scaled_dot_product_attention)]
        results.append(compare(f"attention in bfloat16, {name}", "torch's fused kernel", sides, calls, setting.repeats))
    for name, (size, width) in PATCH_SHAPES.items():
        sides = [patch_steps(kind, size, width, calls) for kind in (PatchConv2d, nn.Conv2d)]
        results.append(compare(f"patches in bfloat16, {name}", "convolution", sides, calls, setting.repeats))
    with allocating_process(memory.keep_freed_memory) as kept, allocating_process() as given_back:
        sides = [lambda: kept(calls), lambda: given_back(calls)]
        results.append(compare("gradient of 101 MB, memory kept", "given back", sides, calls, setting.repeats))
    return results


def compare(name: str, against: str, sides: Sequence[Callable[[], None]], calls: int, repeats: int) -> Result:
    """Our side and the other one in turn, in calls per second."""
    ours, other = take_turns([lambda side=side: calls / time_of(side) for side in sides], repeats)
    return Result(name, ours, "calls/s", against, other, target=1.0)


def attention_steps(attention: Callable[..., Tensor], shape: tuple[int, ...], calls: int) -> Callable[[], None]:
    """A function that goes forward and backward through `attention` so many times."""
    query, key, value, gradient = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(4))

    def run() -> None:
        for _ in range(calls):
            attention(query, key, value).backward(gradient)

    return run


def patch_steps(kind: type[nn.Conv2d], size: int, width: int, calls: int) -> Callable[[], None]:
    """A function that goes forward and backward through a patch embedding of 8 pictures so many times."""
    layer = kind(3, width, size, size)
    pixels = torch.rand(8, 3, 224, 224)

    def run() -> None:
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
