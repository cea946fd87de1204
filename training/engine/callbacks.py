"""What is shown while training runs."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from data_utils.console.progress import progress

SHOWN = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad"}


class LossProgressCallback(ProgressCallback):
    """One progress with loss and learning rate beside it; only evaluations get a line of their own."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin where a checkpoint was left, or the time left would be told too short."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = progress(
                total=state.max_steps, description="training", unit="steps", done=state.global_step
            )

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin another progress with the first batch of an evaluation."""
        if state.is_world_process_zero and has_length(eval_dataloader) and self.prediction_bar is None:
            self.prediction_bar = progress(
                total=len(eval_dataloader), description="evaluation", unit="batches", stays=False
            )
        super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Put the figures of a training step beside the bar, and those of an evaluation above it."""
        if not state.is_world_process_zero or self.training_bar is None or logs is None:
            return
        if "eval_loss" in logs:
            figures = "  ".join(
                f"{name.removeprefix('eval_')} {value:.4f}"
                for name, value in logs.items()
                if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
            )
            self.training_bar.write(f"epoch {logs['epoch']:.2f}  validation: {figures}")
            return
        shown = {short: f"{logs[name]:.4g}" for name, short in SHOWN.items() if isinstance(logs.get(name), float)}
        if shown:
            self.training_bar.set_postfix(shown)
