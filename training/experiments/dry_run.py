"""train.py --dry_run: one update on every rank, then a sheet of what this launch really does."""

from __future__ import annotations

import socket
import time
from collections import Counter
from typing import Any

from accelerate.utils import gather_object
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_utils.console.screen import show
from training.build.plan import ModelPlan
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.engine.trainer import SentimentTrainer
from training.experiments.dry_sheet import describe_launch, describe_sources
from training.experiments.rank_memory import count_bytes, own_gradients, own_optimizer_state, own_parameters
from training.launch.ranks import is_main_process


class OneUpdate(TrainerCallback):
    """Ends training after one update, having looked at it.

    Attributes:
        used: names of the parameters that got a gradient.
        total_steps: updates that the whole training would make.
        memory: bytes of this rank's parameters, gradients and optimizer state.
        loss: of the update.
    """

    def __init__(self, trainer: SentimentTrainer) -> None:
        self.trainer = trainer
        self.used: set[str] = set()
        self.total_steps = 0
        self.memory: Counter[str] = Counter()
        self.loss = float("nan")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.total_steps = state.max_steps
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._note(name))
        if self.trainer.is_deepspeed_enabled:  # its engine updates within the backward pass, before any callback
            step = self.trainer.model_wrapped.step
            self.trainer.model_wrapped.step = lambda *a, **k: (self._measure_gradients(), step(*a, **k))[1]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.trainer.is_deepspeed_enabled:
            self._measure_gradients()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self.memory["optimizer"] = count_bytes(own_optimizer_state(self.trainer.optimizer))
        self.memory["parameters"] = count_bytes(own_parameters(self.trainer.model))
        control.should_training_stop = control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def _note(self, name: str) -> Any:
        return lambda gradient: self.used.add(name)

    def _measure_gradients(self) -> None:
        self.memory["gradients"] = count_bytes(own_gradients(self.trainer))


def run_dry(trainer: SentimentTrainer, prepared: TrainingData | StreamedData, plan: ModelPlan) -> None:
    """Make one update and print the sheet on the main rank; every rank calls it."""
    one = OneUpdate(trainer)
    trainer.add_callback(one)
    trainer.remove_callback(PrinterCallback)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    facts = {
        "device": f"{trainer.args.device} on {socket.gethostname()}",
        "memory": dict(one.memory),
        "unused": [n for n, p in trainer.model.named_parameters() if p.requires_grad and n not in one.used],
    }
    ranks = gather_object([facts])
    if is_main_process():
        sheet = describe_launch(trainer, ranks, one.total_steps) | describe_sources(prepared, plan)
        sheet["first update"] = f"loss {one.loss:.4f}; {seconds:.1f} s with its start-up"
        width = max(map(len, sheet))
        lines = (f"{name:{width}}  {fact}" for name, fact in sheet.items())
        show("Dry run: one update was made and thrown away.", *lines)
