"""train.py's loop against the naive way on the same card: at batch 8, and each at the batch that is best for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.naive import naive_steps
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import ENDLESS, LoopTimer

SIZES, QUICK_SIZES = (8, 64, 256), (2, 4)
STEPS = 20
NAIVE_STEPS = {8: 5, 64: 2, 256: 1}
MOST_REPEATS = 3
TARGET, BEST_TARGET = 3.0, 10.0


def measure(setting: Setting) -> Iterator[Result]:
    """Samples per second of both, in turn at each batch."""
    repeats, loop, naive = min(setting.repeats, MOST_REPEATS), {}, {}
    with naive_steps(setting) as step_naively:
        for rows in QUICK_SIZES if setting.quick else SIZES:
            flags = ("--bf16", "true", "--per_device_train_batch_size", str(rows))
            with setting.assemble(*ENDLESS, *flags) as (trainer, prepared):
                timer = LoopTimer(
                    trainer,
                    partial(step_naively, prepared.train["guid"][:]),
                    steps=setting.steps(STEPS),
                    other_steps=NAIVE_STEPS.get(rows, 1),
                    repeats=repeats,
                )
                trainer.train()
            loop[rows], naive[rows] = timer.loop, timer.other
            target = TARGET if rows == min(SIZES) else None
            note = "train.py in bfloat16, the naive way in float32"
            yield Result(
                f"batch {rows}", timer.loop, "samples/s", "the naive way", timer.other, target=target, note=note
            )
    best, naive_best = (max(rates, key=lambda rows: median(rates[rows])) for rates in (loop, naive))
    yield Result(
        "each at its best batch",
        loop[best],
        "samples/s",
        "the naive way",
        naive[naive_best],
        target=BEST_TARGET,
        note=f"train.py at batch {best}, the naive way at batch {naive_best}; not in turn, if they differ",
    )
