"""train.py's loop against bare steps, and steps with an option against steps without it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, product
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kernels import rate_products
from benchmarks.report import Result
from benchmarks.runner import ENDLESS, take_turns, time_loop, time_of
from benchmarks.setting import TINY, Setting
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import model_inputs
from training.data.features import cache_features
from training.engine.trainer import SentimentTrainer

SMALL, LARGE = 64, 256
# Of the drawn texts one in seven has these or more: each batch holds such a text, so that a compiler meets one shape.
MAX_LENGTH = 32
# train.py's loop makes its first step, with everything a step needs; more of them are made from here.
ONE_STEP = ("--max_steps", "1", "--lr_scheduler_type", "constant", "--eval_strategy", "no", "--report_to", "none")


def measure_loop(setting: Setting, *flags: str, name: str = "train.py's loop", steps: int = 10) -> Iterator[Result]:
    """Rates of the loop and of bare steps on the same batches; on a card, the loop's share of its matrix rate too."""
    steps = setting.steps(steps)
    with setting.assemble(*ENDLESS, *flags) as (trainer, _):
        loop, bare = time_loop(trainer, partial(step_barely, trainer), steps=steps, repeats=setting.repeats)
        note = f"{describe(trainer)}, {steps} steps a turn"
        yield Result(name, loop, "samples/s", "bare steps", bare, target=0.95, note=note)
        if flags:
            peak, operations = median(rate_products(setting)), count_operations(trainer)
            note = f"{operations / 1e9:.3g} GFLOP of matrix products per sample, forward and backward, by "
            note += f"{peak / 1e12:.3g} TFLOP/s of a large product in bfloat16 right after the turns"
            shares = [rate * operations / peak for rate in loop]
            target = 0.4 if trainer.args.torch_compile and f"batch {LARGE}" in name else None
            yield Result(f"{name}: share of the matrix rate", shares, "", target=target, note=note)


def measure_on_card(
    setting: Setting,
    *,
    models: Sequence[str] = ("clip",),
    sizes: Sequence[int] = (LARGE, SMALL),
    compiled: bool = False,
) -> Iterator[Result]:
    """`measure_loop` of each model at each size of a batch; compiled, its first turn compiles."""
    for model, rows in product(models, sizes[:1] if setting.quick else sizes):
        torch._dynamo.reset()
        flags = card_flags(setting, rows, model=model) + (compiler_flags(setting) if compiled else [])
        name = f"{model}, {'compiled' if compiled else 'eager'}, batch {rows}"
        yield from measure_loop(setting, *flags, name=name, steps=20)


def card_flags(setting: Setting, rows: int, *, model: str = "clip") -> list[str]:
    """Flags of random weights in batches of one shape, of so many rows (fewer with --quick)."""
    rows = 8 if setting.quick else rows
    flags = ["--max_length", str(MAX_LENGTH), "--bf16", "true", "--per_device_train_batch_size", str(rows)]
    tiny = ["--text_config", json.dumps(TINY), "--vision_config", json.dumps(TINY)] if setting.quick else []
    return flags if model == "clip" else [*flags, "--model", model, "--from_scratch", "true", *tiny]


def compiler_flags(setting: Setting) -> list[str]:
    """With --quick, graphs are found and no C++ is compiled, which takes minutes for the smallest model too."""
    return ["--torch_compile", "true", "--torch_compile_backend", "eager" if setting.quick else "inductor"]


def describe(trainer: SentimentTrainer) -> str:
    """For notes."""
    return f"batch {trainer.args.train_batch_size}, precision {trainer.args.mixed_precision}"


def step_barely(trainer: SentimentTrainer, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Forward, loss, backward, clipping and update, as by a short script: nothing else is computed, read or checked."""
    model, optimizer = trainer.model_wrapped.train(), trainer.optimizer
    parameters = list(trainer.model.parameters())
    for batch in batches:
        find_loss(model, batch).backward()
        nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


def find_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch on the device."""
    return F.cross_entropy(model(**model_inputs(batch)).logits.float(), batch["labels"])


def count_operations(trainer: SentimentTrainer) -> float:
    """Floating-point operations per row in the matrix products (attention and convolutions too) of a step."""
    (batch,), _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        find_loss(model.train(), batch).backward()
    trainer.optimizer.zero_grad()
    return counter.get_total_flops() / len(batch["labels"])


def measure_options(setting: Setting) -> Iterator[Result]:
    """Samples per second with an option and without it, each side with the reading of its batches."""
    yield from measure_lengths(setting)
    yield from measure_cache(setting)
    yield from measure_compile(setting)


def measure_lengths(setting: Setting) -> Iterator[Result]:
    """The same model, an epoch's rows in other batches."""
    steps = setting.steps(5)
    with setting.assemble(*ONE_STEP) as (trainer, prepared):
        trainer.train()
        side = partial(step_side, trainer, prepared.train, trainer.data_collator, steps)
        grouped, mixed = take_turns([side("group_by_length"), side("random")], setting.repeats)
    name, note = "steps with --train_sampling_strategy group_by_length", f"{steps} batches a turn, from all of an epoch"
    yield Result(name, grouped, "samples/s", "random order", mixed, target=1.0, note=note)


def measure_cache(setting: Setting) -> Iterator[Result]:
    """The same model and rows, with what frozen blocks gave and with these blocks run."""
    steps, last = setting.steps(6), "1" if setting.quick else "2"
    flags = (*ONE_STEP, "--unfreeze_last", last, "--max_train_samples", "256", "--cache_features", "false")
    with setting.assemble(*flags) as (trainer, prepared), tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        trainer.train()
        collator, options = trainer.data_collator, {"cache_dir": Path(folder), "args": trainer.args}
        options |= {"cache_features": True, "rows": prepared.train_rows}
        fill = partial(cache_features, trainer.model, prepared.rows, collator, **options)
        seconds = time_of(fill)
        dataset, of_features = fill()  # from the files now, as every later run has them
        sides = [
            step_side(trainer, replace(prepared, rows=dataset).train, of_features, steps),
            step_side(trainer, prepared.train, collator, steps),
        ]
        cached, full = take_turns(sides, setting.repeats)
    note = f"{describe(trainer)}, {steps} steps a turn; the pass that fills the cache took {seconds:.1f} s, not counted"
    name = f"steps with --unfreeze_last {last} --cache_features"
    yield Result(name, cached, "samples/s", "frozen blocks run", full, target=1.0, note=note)


def measure_compile(setting: Setting) -> Iterator[Result]:
    """The same model and batches, each padded to its longest text alone."""
    steps = setting.steps(3)
    with setting.assemble(*ONE_STEP, *compiler_flags(setting)) as (trainer, prepared):
        seconds = time_of(trainer.train)
        side = partial(step_side, trainer, prepared.train, trainer.data_collator, steps)
        seconds += time_of(side())
        sides = [side(), torch.compiler.set_stance("force_eager")(side())]
        compiled, eager = take_turns(sides, setting.repeats)
    note = f"{describe(trainer)}, {steps} steps a turn; the first {1 + steps} took {seconds:.0f} s and aren't counted"
    yield Result("steps with --torch_compile", compiled, "samples/s", "eager", eager, target=1.0, note=note)


def step_side(
    trainer: SentimentTrainer, dataset: Dataset, collator: PairCollator, steps: int, strategy: str = "random"
) -> Callable[[], float]:
    """Samples per second of so many steps on batches of a --train_sampling_strategy, others in each turn.

    Grouped batches come from the longest to the shortest, so those of a turn are taken at even distances in an epoch.
    """
    trainer.args = trainer.args.replace(train_sampling_strategy=strategy)
    batches = trainer.get_train_dataloader().batch_sampler or ()
    plan = [rows for rows in batches if len(rows) == trainer.args.train_batch_size]
    reader, turns, distance = BatchReader(dataset), count(), max(1, len(plan) // steps)

    def run() -> float:
        chosen = plan[next(turns) % distance :: distance][:steps]
        read = (collator(reader.__getitems__(rows)) for rows in chosen)
        return sum(map(len, chosen)) / time_of(lambda: step_barely(trainer, read))

    return run
