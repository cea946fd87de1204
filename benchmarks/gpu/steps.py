"""train.py's loop against bare steps on tensors that lie on the card, and how much of the card's rate they use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.rates import rate_products
from benchmarks.inputs import TINY
from benchmarks.options import QUICK_BACKEND, count_graphs, own_compiler_state
from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import ENDLESS, Batch, LoopTimer
from training.engine.trainer import SentimentTrainer

SMALL, LARGE = 64, 256
QUICK_SIZE = 8
STEPS = 20
TARGET, UTILISATION_TARGET = 0.95, 0.4
# Drawn texts have 26 tokens on average, and one in seven has these or more: each batch holds such a text, so that all
# have one length, and a compiler meets one shape.
MAX_LENGTH = 32


def time_models(
    setting: Setting, models: Sequence[str], *, compiled: bool = False, sizes: Sequence[int] = ()
) -> Iterator[Result]:
    """`time_loop` of each model at its default size, at each size of a batch; compiled, its first turn compiles."""
    backend = QUICK_BACKEND if setting.quick else "inductor"
    compiling = ("--torch_compile", "true", "--torch_compile_backend", backend) if compiled else ()
    for model in models:
        for rows in sizes or choose_sizes(setting):
            target = UTILISATION_TARGET if compiled and rows == LARGE else None
            name = f"{model}, {'compiled' if compiled else 'eager'}"
            with own_compiler_state(setting.work_dir) if compiled else nullcontext():
                yield from time_loop(setting, rows, *model_flags(setting, model), *compiling, name=name, target=target)


measure = partial(time_models, models=("clip",))
measure_compiled = partial(measure, compiled=True, sizes=(LARGE,))
measure_compiled_small = partial(measure, compiled=True, sizes=(SMALL,))
measure_architectures = partial(time_models, models=("vilbert", "baseline"))
measure_architectures_compiled = partial(measure_architectures, compiled=True)


def model_flags(setting: Setting, model: str) -> Sequence[str]:
    """Flags of a model with random weights: the setting's CLIP, or one of default sizes, with --quick of tiny ones."""
    if model == "clip":
        return ()
    tiny = ("--text_config", json.dumps(TINY), "--vision_config", json.dumps(TINY)) if setting.quick else ()
    return ("--model", model, "--from_scratch", "true", *tiny)


def choose_sizes(setting: Setting) -> Sequence[int]:
    """Rows of the batches that are measured, of which the first one matters most."""
    return (LARGE,) if setting.quick else (LARGE, SMALL)


def loop_flags(setting: Setting, rows: int) -> Sequence[str]:
    """Flags of an endless training in batches of so many rows (fewer with --quick), all of one shape."""
    rows = QUICK_SIZE if setting.quick else rows
    shape = ("--max_length", str(MAX_LENGTH), "--dataloader_drop_last", "true")
    return (*ENDLESS, *shape, "--bf16", "true", "--per_device_train_batch_size", str(rows))


def time_loop(setting: Setting, rows: int, *flags: str, name: str, target: float | None) -> Iterator[Result]:
    """Samples per second of the loop by those of bare steps, and the loop's share of the card's matrix rate.

    `flags` are of train.py, and `target` is of the share.
    """
    steps = setting.steps(STEPS)
    with setting.assemble(*loop_flags(setting, rows), *flags) as (trainer, _):
        timer = LoopTimer(trainer, partial(step_barely, trainer), steps=steps, repeats=setting.repeats)
        peak = median(rate_products(setting))
        (batch,), _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
        operations = count_operations(trainer, batch)
        args = trainer.args
    name, note = f"{name}, batch {rows}", f"batch {args.train_batch_size}, precision {args.mixed_precision}"
    compiled = f", {count_graphs()} graphs compiled" if args.torch_compile else ""
    note = f"{note}, texts cut to {MAX_LENGTH} tokens, {steps} steps a turn{compiled}"
    yield timer.to_result(name, "bare steps", target=TARGET, note=note)
    note = (
        f"{operations / 1e9:.3g} GFLOP of matrix products per sample, forward and backward, by {peak / 1e12:.3g} "
        "TFLOP/s of a large product in bfloat16 right after the turns"
    )
    shares = [rate * operations / peak for rate in timer.loop]
    yield Result(f"{name}: share of the matrix rate", shares, "", target=target, note=note)


def step_barely(trainer: SentimentTrainer, batches: Sequence[tuple[Batch, Tensor]]) -> None:
    """Forward, loss, backward, clipping and update, as by a short script: nothing else is computed, read or checked."""
    model, optimizer = trainer.model_wrapped.train(), trainer.optimizer
    parameters = list(trainer.model.parameters())
    for batch, _ in batches:
        find_loss(model, batch).backward()
        nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


def find_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a batch on the device."""
    inputs = {name: value for name, value in batch.items() if name not in ("row_index", "labels")}
    return F.cross_entropy(model(**inputs).logits.float(), batch["labels"])


def count_operations(trainer: SentimentTrainer, batch: Batch) -> float:
    """Floating-point operations per row in the matrix products (attention and convolutions too) of a step."""
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        find_loss(model.train(), batch).backward()
    trainer.optimizer.zero_grad()
    return counter.get_total_flops() / len(batch["labels"])
