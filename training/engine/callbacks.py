"""What is shown of a training while it runs, when it is saved and stopped, and where its time goes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from data_utils.console.progress import progress
from data_utils.system.files import temporary_path, write_text
from data_utils.system.refusals import MachineError, describe_room
from training.checkpoint import checkpoints
from training.engine.averaging import AVERAGE, WeightAverage
from training.launch.signals import Interrupted

if TYPE_CHECKING:
    from training.engine.resumable import ResumableTrainer

logger = logging.getLogger(__name__)
SHOWN = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad"}
# The first updates are slow in ways of their own: memory is asked for, kernels are chosen or compiled.
WARM_UP, RECORDED = 3, 3
ROWS = 30


class LossProgressCallback(ProgressCallback):
    """One progress with loss and learning rate beside it; only evaluations get a line of their own."""

    training_bar: Any
    prediction_bar: Any

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin where a checkpoint was left, or the time left would be told too short."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = progress(
                total=state.max_steps, description="training", unit="steps", done=state.global_step
            )

    def on_prediction_step(self, args: Any, state: TrainerState, control: Any, **options: Any) -> None:
        """Begin another progress with the first batch of an evaluation."""
        loader: Any = options.get("eval_dataloader")
        if state.is_world_process_zero and has_length(loader) and self.prediction_bar is None:
            self.prediction_bar = progress(total=len(loader), description="evaluation", unit="batches", stays=False)
        super().on_prediction_step(args, state, control, **options)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Put the figures of a training step beside the bar, and those of an evaluation above it."""
        if not state.is_world_process_zero or self.training_bar is None:
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

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # After an epoch's last update the checkpoint has to wait for its evaluation, which a resume would leave out.
        if not (state.epoch.is_integer() or control.should_training_stop):
            control.should_save = control.should_save or self.trainer.stop_requested
        self._prepare_to_show(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.checks.finish()  # a stop is not to wait for the next epoch's first update
        control.should_save = control.should_save or self.trainer.stop_requested
        self._prepare_to_show(control)

    def _prepare_to_show(self, control: TrainerControl) -> None:
        """Nothing is logged, evaluated or saved before it is known that all updates were sound."""
        # A checkpoint doesn't hold the losses since the last log entry: without an entry they'd be lost in a resume.
        control.should_log = control.should_log or control.should_save
        if control.should_log or control.should_evaluate:
            self.trainer.checks.finish()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer.stop_requested:
            raise Interrupted(
                f"Stopped by a signal after update {state.global_step}; a checkpoint is in {args.output_dir}. Go on "
                "with the same command and --resume_from_checkpoint latest."
            )


class AverageCallback(TrainerCallback):
    """Keeps the average of the weights while they are trained; a resumed one goes on with the checkpoint's."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.average: WeightAverage

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once the parameters are those of this launch, on their devices."""
        checkpoint = self.trainer.resumed_from
        self.average = self.trainer.average = WeightAverage(self.trainer.model, args.ema_decay)
        if checkpoint is not None and (checkpoint / AVERAGE).exists():  # one of before knows no --ema_decay
            self.average.load(checkpoint)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After each update, before anything is evaluated or saved."""
        self.average.update()


class ProfileCallback(TrainerCallback):
    """Records updates 4 to 6 of a launch on each rank, and writes what they consist of into `folder`.

    Files: trace-rank0.json for chrome://tracing or Perfetto, table-rank0.txt with the operations by their own time,
    summed over the recorded updates.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profiler: profile | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        steps = WARM_UP + RECORDED
        if state.max_steps - state.global_step < steps:
            logger.warning("--profile records updates %d to %d: this launch makes fewer.", WARM_UP + 1, steps)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profiler = profile(
            activities=supported_activities() & {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU},
            schedule=schedule(wait=WARM_UP - 1, warmup=1, active=RECORDED, repeat=1),
            on_trace_ready=lambda profiler: self._write(profiler, rank=args.process_index),
        )
        self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, profiler: profile, *, rank: int) -> None:
        trace = self.folder / f"trace-rank{rank}.json"
        grown = temporary_path(trace)
        profiler.export_chrome_trace(str(grown))
        if not grown.exists():  # the profiler says so in a line of its own, and goes on
            grown.with_name(f"{grown.name}.tmp").unlink(missing_ok=True)
            raise MachineError(f"Cannot write {trace}{describe_room(trace)}; make room there, or leave out --profile.")
        os.replace(grown, trace)
        on_cpu = profiler.activities == {ProfilerActivity.CPU}
        order = "self_cpu_time_total" if on_cpu else "self_device_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=ROWS)
        write_text(self.folder / f"table-rank{rank}.txt", f"{RECORDED} updates\n{table}\n")
        logger.info("The profile of updates %d to %d is in %s.", WARM_UP + 1, WARM_UP + RECORDED, self.folder)
