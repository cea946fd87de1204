"""What is shown while training runs, and when it is saved and stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from data_utils.console.progress import progress
from training.checkpoint import checkpoints
from training.launch.signals import Interrupted

if TYPE_CHECKING:
    from training.engine.resumable import ResumableTrainer

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


class CheckpointCallback(TrainerCallback):
    """Begins where a checkpoint was left; ends a run with one when it was asked to stop; logs the loss up to each."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the best checkpoint beside the resumed one, wherever both lie; wait as this launch's flag says."""
        trainer, checkpoint = self.trainer, self.trainer.resumed_from
        trainer.first_step, trainer.first_epoch = state.global_step, state.epoch or 0.0
        for each in trainer.early_stopping():  # restored with the checkpoint's patience
            each.early_stopping_patience = args.early_stopping_patience
        if checkpoint is not None:
            step = state.best_global_step
            is_best = step == state.global_step
            best = checkpoint if is_best else checkpoint.with_name(checkpoints.checkpoint_name(step or 0))
            state.best_model_checkpoint = str(best) if step and best.exists() else None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # After an epoch's last update the checkpoint has to wait for its evaluation, which a resume would leave out.
        if not (state.epoch.is_integer() or control.should_training_stop):
            control.should_save = control.should_save or self.trainer.stop_requested
        self._prepare_to_show(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.checks.finish()  # a stop is not to wait for the next epoch's first update
        control.should_save = control.should_save or self.trainer.stop_requested
        self._prepare_to_show(control)

    def _prepare_to_show(self, control: TrainerControl) -> None:
        """Nothing is logged, evaluated or saved before it is known that all updates were sound."""
        # A checkpoint doesn't hold the losses since the last log entry: without an entry they'd be lost in a resume.
        control.should_log = control.should_log or control.should_save
        if control.should_log or control.should_evaluate:
            self.trainer.checks.finish()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.stop_requested:
            raise Interrupted(
                f"Stopped by a signal after update {state.global_step}; a checkpoint is in {args.output_dir}. Go on "
                "with the same command and --resume_from_checkpoint latest."
            )
