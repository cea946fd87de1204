"""transformers.Trainer whose checkpoints are whole or absent, and can be gone on from under any launch."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from data_utils.system.refusals import tell_refusals
from modeling.errors import InputError
from training.checkpoint import checkpoints
from training.checkpoint.sharding import gather_float32, reshard, scatter_weights
from training.checkpoint.universal import load_moments
from training.engine.looks import LateLooks
from training.launch.console import GO_ON
from training.launch.launch import check_wrapping
from training.launch.signals import Interrupted

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Adds to Trainer: checkpoints renamed into place when every rank has written, whole float32 weights under any
    strategy, going on with another number of ranks, and a stop at a signal.

    Attributes:
        first_step: updates that were made before this launch.
        stop_requested: set on all ranks alike when any of them got a signal; the update at hand ends with a checkpoint.
        optimizer_is_new: whether it began anew in a training that is gone on with.
        looks: at figures of updates, which may end the training; none is open when anything is logged, judged or saved.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.first_step = 0
        self.stop_requested = self.optimizer_is_new = False
        self.looks = LateLooks()
        self._partial_dir: Path | None = None
        super().__init__(**kwargs)
        self.add_callback(_SaveAndStop(self))

    @property
    def zero_stage(self) -> int | None:
        """DeepSpeed's stage, None without DeepSpeed."""
        return self.accelerator.state.deepspeed_plugin.zero_stage if self.is_deepspeed_enabled else None

    @property
    def optimizer_layout(self) -> str:
        """How the optimizer's state is laid out in this launch's checkpoints; equal ones can be gone on from."""
        args, kind = self.args, self.args.optimizer_kind
        if self.is_deepspeed_enabled:
            return f"{kind} under ZeRO-{self.zero_stage}, {args.mixed_precision} precision, {args.world_size} ranks"
        return f"{kind} under FSDP" if self.is_fsdp_enabled else f"{kind}, whole"

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """As in Trainer.

        Raises:
            InputError: the checkpoint holds objects other than numbers, which might be made to run code.
        """
        try:
            return super().train(resume_from_checkpoint, **kwargs)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{resume_from_checkpoint} can't be gone on from: a file of it is damaged, or holds other objects than "
                "numbers, which are not loaded. Use another checkpoint."
            ) from error

    def create_accelerator_and_postprocess(self) -> None:
        """As in Trainer; where DeepSpeed's settings contradict the flags, an error before anything is done."""
        try:
            super().create_accelerator_and_postprocess()
        except ValueError as error:  # flags that don't go with DeepSpeed or FSDP
            raise InputError(str(error)) from error
        if self.args.torch_compile and self.args.tf32 is False:
            torch.backends.cuda.matmul.allow_tf32 = False  # accelerate turned it on
        if not self.is_deepspeed_enabled:
            return
        settings = self.accelerator.state.deepspeed_plugin.hf_ds_config
        if self.zero_stage == 3 and not settings.is_true("zero_optimization.stage3_gather_16bit_weights_on_model_save"):
            raise InputError(
                "Under ZeRO-3 no whole model would be saved; write zero3_save_16bit_model: true into the launch file."
            )
        contradictions = settings.mismatches
        if contradictions:
            raise InputError(
                "DeepSpeed's settings (ds) and the flags (hf) contradict each other: "
                f"{'; '.join(line.removeprefix('- ') for line in contradictions)}. Write auto into the launcher's file."
            )

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> tuple[nn.Module, DataLoader]:
        """Wrap the model, load the checkpoint's states, and check that the ranks are tied as asked for."""
        if resume_from_checkpoint is None or self._optimizer_fits(Path(resume_from_checkpoint)):
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        else:
            checkpoint = Path(resume_from_checkpoint)
            self.model.load_state_dict(checkpoints.load_weights(checkpoint))
            prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
            self.lr_scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER_NAME, weights_only=True))
            # The optimizer has the schedule's first rate until the scheduler's next step, after one more update.
            for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
            self._convert_optimizer(checkpoint)
        check_wrapping(self.model_wrapped, zero_stage=self.zero_stage, world_size=self.args.world_size)
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As in Trainer, which refuses FSDP's checkpoints elsewhere, though they hold whole weights too."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            (model or self.model).load_state_dict(checkpoints.load_weights(Path(resume_from_checkpoint)))

    def _optimizer_fits(self, checkpoint: Path) -> bool:
        manifest = checkpoints.read_manifest(checkpoint)
        return manifest is not None and manifest.optimizer == self.optimizer_layout

    def _convert_optimizer(self, checkpoint: Path) -> None:
        """Load the optimizer's state out of another launch's layout, or say that it starts anew."""
        written_by = checkpoints.read_manifest(checkpoint).optimizer
        # In half precision DeepSpeed keeps its masters in other ways at each stage.
        readable = "adamw_torch under ZeRO-", ", no precision"
        both = (written_by, self.optimizer_layout)
        if all(part in layout for part in readable for layout in both) and load_moments(self.deepspeed, checkpoint):
            logger.info("The optimizer's state was converted (%s; this launch: %s).", written_by, self.optimizer_layout)
            return
        self.optimizer_is_new = True
        logger.warning(
            "The optimizer's state in %s is laid out for another launch (%s; this one: %s) and starts anew; weights, "
            "learning rate and position go on.",
            *(checkpoint, written_by, self.optimizer_layout),
        )

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """As in Trainer; the best checkpoint is looked for beside the resumed one, wherever both lie by now."""
        position = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        self.first_step = self.state.global_step
        if resume_from_checkpoint is not None:
            checkpoint, step = Path(resume_from_checkpoint), self.state.best_global_step
            is_best = step == self.state.global_step
            best = checkpoint if is_best else checkpoint.with_name(checkpoints.checkpoint_name(step or 0))
            self.state.best_model_checkpoint = str(best) if step and best.exists() else None
        return position

    def _load_callback_state(self) -> None:
        """As in Trainer, which would count towards the checkpoint's --early_stopping_patience, not this launch's."""
        super()._load_callback_state()
        for callback in self._early_stopping():
            callback.early_stopping_patience = self.args.early_stopping_patience

    def _early_stopping(self) -> list[EarlyStoppingCallback]:
        return [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]

    def _is_finished(self) -> bool:
        """Whether the last update is made, or no better model has come for as long as was to be waited for."""
        waited = (each.early_stopping_patience_counter for each in self._early_stopping())
        return self.state.global_step >= self.state.max_steps or any(
            evaluations >= self.args.early_stopping_patience for evaluations in waited
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As in Trainer, which would train on where the checkpoint was the last one."""
        if self._is_finished():
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """As in Trainer, once it is known that all updates were sound."""
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.looks.settle()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> TrainOutput:
        """As in Trainer, which would delete the newest checkpoint under a limit of 1; `rotate` has seen to it."""
        self.looks.settle()
        args, self.args = self.args, self.args.replace(save_total_limit=None)
        try:
            ended = super()._finalize_training(trial, num_train_samples, start_time)
        finally:
            self.args = args
        # Older versions of Trainer divide the rows of all planned updates by this launch's seconds.
        rows = num_train_samples * (self.state.global_step - self.first_step) / max(self.state.max_steps, 1)
        ended.metrics["train_samples_per_second"] = round(rows / ended.metrics["train_runtime"], 3)
        return ended

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self._partial_dir or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Trainer's checkpoint, grown aside and renamed when every rank has written its part."""
        folder = Path(self.args.output_dir)
        if self.args.should_save:
            checkpoints.clear_leftovers(folder)
        self.accelerator.wait_for_everyone()
        target = folder / checkpoints.checkpoint_name(self.state.global_step)
        with tell_refusals(target, need=checkpoints.estimate_bytes(folder, self.model), again=GO_ON):
            try:
                self._grow_checkpoint(folder, model, trial)
            except BaseException:
                if self.args.should_save:
                    checkpoints.clear_leftovers(folder)  # half a checkpoint would only take the room
                raise
        self.accelerator.wait_for_everyone()

    def _grow_checkpoint(self, folder: Path, model: nn.Module, trial: Any) -> None:
        self._partial_dir = folder / checkpoints.PARTIAL
        try:
            super()._save_checkpoint(model, trial)
            grown = self._partial_dir / checkpoints.checkpoint_name(self.state.global_step)
            if self.is_deepspeed_enabled and self.args.should_save and not self.args.save_only_model:
                # DeepSpeed looks for it on every machine, but writes it on rank 0 alone.
                (grown / "latest").write_text(f"global_step{self.state.global_step}", encoding="utf-8")
        finally:
            self._partial_dir = None
        best = self._find_best(folder)
        self.state.best_model_checkpoint = None if best is None else str(best)
        if self.args.should_save:
            self.state.save_to_json(str(grown / TRAINER_STATE_NAME))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(
                grown,
                folder,
                world_size=self.args.world_size,
                global_batch_size=self.args.global_batch_size,
                optimizer=checkpoints.NO_OPTIMIZER if self.args.save_only_model else self.optimizer_layout,
                update_flags=self.args.update_flags,
            )
            checkpoints.rotate(folder, limit=self.args.save_total_limit, keep=best)

    def _find_best(self, folder: Path) -> Path | None:
        """The checkpoint of the best evaluation, if there is one or this is it."""
        step = self.state.best_global_step
        path = folder / checkpoints.checkpoint_name(step or 0)
        if step and (step == self.state.global_step or path.exists()):
            return path
        earlier = self.state.best_model_checkpoint  # in the folder from which this run went on
        return Path(earlier) if earlier and Path(earlier).exists() else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights and configuration; DeepSpeed's half precision is replaced by its float32 masters."""
        # Trainer gathers ZeRO-3's shards on rank 0 alone, while every machine may need a copy.
        if self.is_deepspeed_enabled and (self.args.mixed_precision in ("bf16", "fp16") or self.args.save_on_each_node):
            weights = gather_float32(self.deepspeed, wanted=self.args.should_save)
            if self.args.should_save:
                self._save(output_dir, weights)
        else:
            super().save_model(output_dir, _internal_call)

    def _load_best_model(self) -> None:
        """Back to the best weights; DeepSpeed's own loading needs the launch that wrote them."""
        best = Path(self.state.best_model_checkpoint)
        if self.is_deepspeed_enabled and not self._optimizer_fits(best):
            scatter_weights(self.deepspeed, checkpoints.load_weights(best))
        else:
            reshard(self.model)
            super()._load_best_model()


class _SaveAndStop(TrainerCallback):
    """Ends a run with a checkpoint when it was asked to stop, and logs the loss up to every checkpoint."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        # After an epoch's last update the checkpoint has to wait for its evaluation, which a resume would leave out.
        if not (state.epoch.is_integer() or control.should_training_stop):
            control.should_save = control.should_save or self.trainer.stop_requested
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.trainer.looks.settle()  # a stop is not to wait for the next epoch's first update
        control.should_save = control.should_save or self.trainer.stop_requested
        # A checkpoint doesn't hold the losses since the last log entry: without an entry they'd be lost in a resume.
        control.should_log = control.should_log or control.should_save
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.stop_requested:
            raise Interrupted(
                f"Stopped by a signal after update {state.global_step}; a checkpoint is in {args.output_dir}. Go on "
                "with the same command and --resume_from_checkpoint latest."
            )
