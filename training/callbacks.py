"""What is shown while training runs."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

SHOWN = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad"}


class LossProgressCallback(ProgressCallback):
    """One progress bar with loss and learning rate beside it; only evaluations get a line of their own."""

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
        self.training_bar.set_postfix(shown)
