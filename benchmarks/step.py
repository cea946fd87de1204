"""The step ceiling: train.py's loop on real data against the same steps on batches that are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import ENDLESS, Batch, LoopTimer
from training.engine.trainer import SentimentTrainer

STEPS = 10
TARGET = 0.95


def measure(setting: Setting) -> list[Result]:
    """Rates of the loop and of the bare steps, on the same rows."""
    steps = setting.steps(STEPS)
    with setting.assemble(*ENDLESS) as (trainer, _):
        timer = LoopTimer(trainer, partial(step_on, trainer), steps=steps, repeats=setting.repeats)
        args = trainer.args
    note = f"batch {args.train_batch_size}, precision {args.mixed_precision}, {steps} steps a turn"
    return [timer.to_result("train.py's loop", "bare steps", target=TARGET, note=note)]


def step_on(trainer: SentimentTrainer, batches: Sequence[tuple[Batch, Tensor]]) -> None:
    """Forward, backward, clipping, update and schedule of batches in memory: nothing is read, logged or asked."""
    for batch, weight_sum in batches:
        trainer.training_step(trainer.model_wrapped, batch, weight_sum)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.optimizer.zero_grad()
