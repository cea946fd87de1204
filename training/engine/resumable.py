"""transformers.Trainer whose checkpoints are whole or absent, and can be gone on from under any launch.

Whatever overrides a private method of Trainer lies here, with what Trainer does and why that isn't enough.
tests/trainings/test_trainer_overrides.py tells when Trainer renames such a method or gives it other parameters.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from data_utils.system.refusals import tell_refusals
from modeling.errors import InputError
from training.checkpoint import checkpoints
from training.checkpoint.sharding import gather_float32, load_moments, reshard, scatter_weights
from training.engine.averaging import WeightAverage
from training.engine.callbacks import AverageCallback, CheckpointCallback
from training.engine.deferred_checks import DeferredChecks
from training.launch.checks import check_wrapping
from training.launch.console import GO_ON

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Adds to Trainer: checkpoints renamed into place when every rank has written, whole float32 weights under any
    strategy, going on with another number of ranks, and a stop at a signal.

    Attributes:
        resumed_from: the checkpoint that this launch goes on from.
        first_step, first_epoch: updates and epochs that were made before this launch.
        stop_requested: set on all ranks alike when any of them got a signal; the update at hand ends with a checkpoint.
        optimizer_is_new: whether it began anew in a training that is gone on with.
        average: of the weights, with --ema_decay, while a training lasts; what is evaluated then, and kept in the end.
        checks: of figures of updates; none is open when anything is logged, evaluated or saved.
    """

    optimizer: Any

    def __init__(self, **kwargs: Any) -> None:
        self.resumed_from: Path | None = None
        self.first_step, self.first_epoch = 0, 0.0
        self.stop_requested = self.optimizer_is_new = False
        self.average: WeightAverage | None = None
        self.checks = DeferredChecks()
        super().__init__(**kwargs)
        self.add_callback(CheckpointCallback(self))
        if self.args.ema_decay:
            self.add_callback(AverageCallback(self))

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

    def begin_epoch(self, epoch: int, *, skipped: int) -> None:
        """Called before each epoch's first batch is read; of a resumed one the first `skipped` batches are left out."""

    def check_gradient(self, norm: Tensor | float | None) -> None:
        """Called before each update with the norm of its whole gradient, if there is one."""

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """As in Trainer."""
        self.resumed_from = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        try:
            ended = super().train(resume_from_checkpoint, **kwargs)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{resume_from_checkpoint} can't be gone on from: a file of it is damaged, or holds other objects than "
                "numbers, which are not loaded. Use another checkpoint."
            ) from error
        if self.average is not None:
            self._keep_average(self.average)
        # Older versions of Trainer divide the rows of all planned updates by this launch's seconds.
        rows = self.num_examples(self.callback_handler.train_dataloader) * ((self.state.epoch or 0) - self.first_epoch)
        ended.metrics["train_samples_per_second"] = round(rows / ended.metrics["train_runtime"], 3)
        return ended

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
        if settings.mismatches:
            raise InputError(
                "DeepSpeed's settings (ds) and the flags (hf) contradict each other: "
                f"{'; '.join(line.removeprefix('- ') for line in settings.mismatches)}. Write auto into the launcher's "
                "file."
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights and configuration; DeepSpeed's half precision is replaced by its float32 masters."""
        # Trainer gathers ZeRO-3's shards on rank 0 alone, while every machine may need a copy.
        if self.is_deepspeed_enabled and (self.args.mixed_precision in ("bf16", "fp16") or self.args.save_on_each_node):
            weights = gather_float32(self.deepspeed, wanted=self.args.should_save)
            if self.args.should_save:
                self._save(output_dir, weights)
        else:
            super().save_model(output_dir, _internal_call)

    def _keep_average(self, average: WeightAverage) -> None:
        """End with the averaged weights in the place of the model's own, in DeepSpeed's masters too."""
        if self.is_deepspeed_enabled:
            scatter_weights(self.deepspeed, average.weights())
        else:
            average.put_in(average.weights())
        self.average = None

    def early_stopping(self) -> list[EarlyStoppingCallback]:
        """The callbacks that wait for a better model."""
        return [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]

    def _is_finished(self) -> bool:
        """Whether the last update is made, or no better model has come for as long as was to be waited for."""
        waited = (each.early_stopping_patience_counter for each in self.early_stopping())
        return self.state.global_step >= self.state.max_steps or any(
            evaluations >= self.args.early_stopping_patience for evaluations in waited
        )

    def _fits(self, checkpoint: Path) -> bool:
        """Whether this launch can load the optimizer's state of a checkpoint as it lies there."""
        return _layout_of(checkpoint) == self.optimizer_layout

    def _convert_optimizer(self, checkpoint: Path) -> None:
        """Load the optimizer's state out of another launch's layout, or say that it starts anew."""
        written_by = _layout_of(checkpoint)
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

    def _find_best(self, folder: Path) -> Path | None:
        """The checkpoint of the best evaluation, if there is one or this is it."""
        step = self.state.best_global_step
        path = folder / checkpoints.checkpoint_name(step or 0)
        if step and (step == self.state.global_step or path.exists()):
            return path
        earlier = self.state.best_model_checkpoint  # in the folder from which this run went on
        return Path(earlier) if earlier and Path(earlier).exists() else None

    # --- Private methods of Trainer ---

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> tuple[nn.Module, DataLoader]:
        # Trainer wraps the model and loads a checkpoint's weights, optimizer and schedule into it: DeepSpeed's only
        # under the launch that wrote it. There is no hook between the wrapping and the first update.
        if resume_from_checkpoint is None or self._fits(Path(resume_from_checkpoint)):
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
        # Trainer loads weights, but refuses FSDP's checkpoints elsewhere, though they hold whole weights too.
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            (model or self.model).load_state_dict(checkpoints.load_weights(Path(resume_from_checkpoint)))

    def _run_epoch(self, **kwargs: Any) -> None:
        # Trainer trains on where the checkpoint was the last one: it looks for the end after an update only. And a
        # stream has to know which of its batches come next before any is read.
        if self._is_finished():
            self.control.should_training_stop = True
            return
        skipped = kwargs["steps_trained_in_current_epoch"] if kwargs["epoch"] == kwargs["epochs_trained"] else 0
        self.begin_epoch(kwargs["epoch"], skipped=skipped)
        super()._run_epoch(**kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        # Trainer gives the norm to the log alone; no callback is told it before the update is made.
        norm = super()._get_grad_norm(model, grad_norm)
        self.check_gradient(norm)
        return norm

    def _get_output_dir(self, trial: Any = None) -> str:
        # Where Trainer writes checkpoints and, at the end, looks for those to delete: under a limit of 1 the newest.
        # They are written here, moved to their place as a whole, and deleted by `rotate`.
        return str(Path(self.args.output_dir) / checkpoints.PARTIAL)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        # Trainer writes into a checkpoint's final place, where a kill or a full disk leaves half of it.
        folder = Path(self.args.output_dir)
        if self.args.should_save:
            checkpoints.clear_leftovers(folder)
        self.accelerator.wait_for_everyone()
        target = folder / checkpoints.checkpoint_name(self.state.global_step)
        with tell_refusals(target, need=checkpoints.estimate_bytes(folder, self.model), again=GO_ON):
            try:
                super()._save_checkpoint(model, trial)
                self._publish_checkpoint(folder)
            except BaseException:
                if self.args.should_save:
                    checkpoints.clear_leftovers(folder)  # half a checkpoint would only take the room
                raise
        self.accelerator.wait_for_everyone()

    def _publish_checkpoint(self, folder: Path) -> None:
        """Move a checkpoint to its place, when all ranks have written it, and delete what is too old."""
        written = folder / checkpoints.PARTIAL / checkpoints.checkpoint_name(self.state.global_step)
        best = self._find_best(folder)
        self.state.best_model_checkpoint = None if best is None else str(best)
        if self.args.should_save:
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))
            if self.average is not None:
                self.average.save(written)
            if self.is_deepspeed_enabled and not self.args.save_only_model:
                # DeepSpeed looks for it on every machine, but writes it on rank 0 alone.
                (written / "latest").write_text(f"global_step{self.state.global_step}", encoding="utf-8")
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(
                written,
                folder,
                world_size=self.args.world_size,
                global_batch_size=self.args.global_batch_size,
                optimizer=checkpoints.NO_OPTIMIZER if self.args.save_only_model else self.optimizer_layout,
                update_flags=self.args.update_flags,
            )
            checkpoints.rotate(folder, limit=self.args.save_total_limit, keep=best)

    def _load_best_model(self) -> None:
        # Trainer loads the best weights; DeepSpeed's only under the launch that wrote them.
        best = Path(self.state.best_model_checkpoint)
        if self.is_deepspeed_enabled and not self._fits(best):
            scatter_weights(self.deepspeed, checkpoints.load_weights(best))
        else:
            reshard(self.model)
            super()._load_best_model()
        if self.average is not None:
            self.average.load(best)


def _layout_of(checkpoint: Path) -> str:
    """How the optimizer's state of a checkpoint is laid out."""
    manifest = checkpoints.read_manifest(checkpoint)
    return checkpoints.NO_OPTIMIZER if manifest is None else manifest.optimizer
