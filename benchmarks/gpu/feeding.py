"""Whether the card gets its batches in time: pictures per second that reach it, how long it waits, for what."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.steps import choose_sizes, loop_flags, step_barely
from benchmarks.loader import TINY_CLIP
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import Batch, LoopTimer, synchronize, take_turns, time_of
from training.engine.trainer import SentimentTrainer

TARGET, WAITING_TARGET = 20_000, 3.0
PASSES = 5
STEPS = 10  # about those of an epoch of the drawn pairs at the large batch


def measure(setting: Setting) -> Iterator[Result]:
    """Pictures per second to the device; share of the time in which it waits, and synchronisations per update."""
    for rows in choose_sizes(setting):
        with setting.assemble(*TINY_CLIP, *loop_flags(setting, rows)) as (trainer, _):
            loader, passes = trainer.get_train_dataloader(), setting.steps(PASSES)
            rates = take_turns([partial(rate_feeding, trainer, loader, passes)], setting.repeats)[0]
        yield Result(f"pictures to the card, batch {rows}", rates, "pictures/s", target=TARGET)
    for rows in choose_sizes(setting):
        yield from watch_loop(setting, rows)


def rate_feeding(trainer: SentimentTrainer, loader: Iterable[Batch], passes: int) -> float:
    """Rows per second from the cache to the card, in the way of the training, in some passes."""
    rows = []

    def run() -> None:
        for _ in range(passes):
            batches = iter(loader)
            while found := trainer.get_batch_samples(batches, 1, trainer.args.device)[0]:
                rows.append(len(found[0]["labels"]))

    seconds = time_of(run)
    return sum(rows) / seconds


def watch_loop(setting: Setting, rows: int) -> Iterator[Result]:
    """Waiting and synchronisations of train.py's loop, and the waiting of bare steps, which wait for no batch."""
    steps, counts, shares = setting.steps(STEPS), [], []
    watches = [partial(count_synchronisations, counts), partial(watch_waiting, shares)]
    with setting.assemble(*loop_flags(setting, rows)) as (trainer, _):
        LoopTimer(trainer, partial(step_barely, trainer), steps=steps, repeats=1, watches=watches)
    found, bare = (count / steps for count in counts)
    note = f"over {steps} updates, by torch.cuda.set_sync_debug_mode; of bare steps {bare:g}"
    yield Result(f"synchronisations per update, batch {rows}", [found], "", note=note)
    name = f"waiting of the card, batch {rows}"
    if None in shares:
        yield Result(name, [], "%", note="torch's profiler saw no kernel")
        return
    share, bare = (100 * share for share in shares)
    note = (
        f"time without a kernel from the first to the last one of {steps} updates, by torch's profiler, which "
        f"slows their launch; of bare steps {bare:.3g} %"
    )
    yield Result(name, [share], "%", target=WAITING_TARGET, at_least=False, note=note)


@contextmanager
def count_synchronisations(counts: list[int]) -> Iterator[None]:
    """Add to `counts` how often the host waits for the card within the context."""
    on_card = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_card:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            if on_card:
                torch.cuda.set_sync_debug_mode("default")
    counts.append(sum("synchronizing CUDA operation" in str(each.message) for each in caught))


@contextmanager
def watch_waiting(shares: list[float | None]) -> Iterator[None]:
    """Add to `shares` the share of the time in which the card does nothing within the context.

    It begins with the first kernel and ends with the last one. A copy from or to the host is no work: whoever waits for
    it waits. None where the profiler saw no kernel.
    """
    on_card = torch.cuda.is_available()
    synchronize()
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as profiler:
        yield
        synchronize()
    device = DeviceType.CUDA if on_card else DeviceType.CPU
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == device
        and not event.is_user_annotation
        and not event.name.startswith(("Memcpy HtoD", "Memcpy DtoH"))
    ]
    shares.append(find_idle_share(spans))


def find_idle_share(spans: Sequence[tuple[float, float]]) -> float | None:
    """The share of the time from the first begin to the last end that no span covers; None without spans."""
    if not spans:
        return None
    idle, begin = 0.0, min(spans)[0]
    reached = begin
    for start, end in sorted(spans):
        idle += max(0.0, start - reached)
        reached = max(reached, end)
    return idle / (reached - begin)
