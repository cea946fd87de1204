"""transformers.Trainer with this project's loss, learning rates, modality dropout and checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction
from transformers.integrations.neftune import activate_neftune, deactivate_neftune
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, TrainOutput

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.system.refusals import RankError
from evaluation.predict.inference import check_rows_counted_once
from evaluation.scores.metrics import SentimentMetrics
from modeling.batch import SentimentOutput
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.engine.losses import ClassBalance, balance_classes
from training.engine.objective import group_parameters, training_loss
from training.engine.resumable import ResumableTrainer
from training.flags.arguments import SentimentTrainingArguments
from training.flags.own import METRICS
from training.launch.signals import is_stop_requested
from training.launch.trackers import hold_trackers

NON_FINITE_REMEDY = (
    "Lower --learning_rate or --head_learning_rate, use --bf16 or float32 instead of --fp16, or resume from an earlier "
    "checkpoint."
)


class NonFiniteLossError(RankError):
    """The loss, a gradient or an answer became nan or infinite; no further update is made."""


class EpochLengthSampler(LengthGroupedSampler):
    """transformers' sampler in an order that depends on seed and epoch alone.

    Its own order is drawn from torch's random numbers, of which dropout takes more on ranks with longer texts: from the
    second epoch on the ranks would deal from different orders, so that rows were trained on twice and others never.

    Args:
        grouped: whose lengths and batch size are taken.
        seed: of the orders.
    """

    def __init__(self, grouped: LengthGroupedSampler, *, seed: int) -> None:
        super().__init__(grouped.batch_size, lengths=grouped.lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate calls it before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self._seed + self._epoch)
        return super().__iter__()


class SentimentTrainer(ResumableTrainer):
    """Trains a `SentimentClassifier`. Rows carry row_index, counting from 0 in each data set.

    Args:
        model: on any device.
        args: flags.
        train_dataset, eval_dataset: tokenised rows; no evaluation where the latter is None.
        collator: rows -> batch.
    """

    def __init__(
        self,
        *,
        model: SentimentClassifier,
        args: SentimentTrainingArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        collator: PairCollator,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self._has_two_modalities = model.uses_text and model.uses_image
        self.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        super().__init__(
            model=model,
            args=args.replace(label_names=["labels", "row_index"]),  # are gathered from all ranks beside the logits
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collator,
            compute_metrics=self._compute_metrics,
            callbacks=list(callbacks),
        )
        # compute_loss returns shares of the global batch's mean: Trainer mustn't divide by the accumulation again.
        self.model_accepts_loss_kwargs = True
        self.balance = self._balance_classes()
        self._device_balance = self.balance.to(args.device)
        self._judged = eval_dataset
        self._trackers = hold_trackers(self.callback_handler)
        self.neftune_noise_alpha = None  # Trainer would look for one table of embeddings of the whole model

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in Trainer; with --neftune_noise_alpha the embeddings of words are noisy meanwhile."""
        if not self.args.neftune_noise_alpha:
            return super().train(*args, **kwargs)
        encoder = self.model.text_tower.encoder
        try:
            noise = activate_neftune(encoder, self.args.neftune_noise_alpha)
        except (AttributeError, NotImplementedError) as error:
            raise InputError(
                f"Got --neftune_noise_alpha, but {type(encoder).__name__} names no embeddings of words; leave it out."
            ) from error
        try:
            return super().train(*args, **kwargs)
        finally:
            deactivate_neftune(encoder, noise)

    def end_trackers(self) -> None:
        """End the runs of all trackers, after the final figures; every rank calls it."""
        for tracker in self._trackers:
            tracker.end()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW (or what --optim names) with the towers' rate and the head's, with and without weight decay."""
        model = self.model if model is None else model
        if self.optimizer is None:
            groups = group_parameters(model, decayed=set(self.get_decay_parameter_names(model)), args=self.args)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The micro batches of one update, and the sum of their rows' class weights over all ranks."""
        batches = list(islice(epoch_iterator, num_batches))
        self._mark_filling_rows(batches)
        labels = torch.cat([batch["labels"] for batch in batches] or [torch.zeros(0, dtype=torch.long)])
        weight_sum = self.balance.weights[labels[labels != NO_LABEL_ID]].sum()
        # Every rank learns here, at no further cost, whether any was asked to stop.
        sums = torch.stack([weight_sum, torch.tensor(float(is_stop_requested()))])
        # From pinned memory an accelerator copies while the host goes on.
        sums = sums.pin_memory() if self.args.dataloader_pin_memory else sums
        batches, sums = send_to_device((batches, sums), device, non_blocking=True)
        sums = self.accelerator.reduce(sums, reduction="sum")
        self.looks.look(sums, self._judge_sums)
        return batches, sums[0]

    def _judge_sums(self, sums: Sequence[float]) -> None:
        """Of an update over all ranks: the rows' class weights, and how many ranks were asked to stop."""
        self.stop_requested = sums[1] > 0

    def _balance_classes(self) -> ClassBalance:
        counts = torch.bincount(torch.as_tensor(self.train_dataset["label"][:]), minlength=len(self.labels))
        return balance_classes(self.args, counts)

    def _mark_filling_rows(self, batches: list[dict[str, Tensor]]) -> None:
        """Take the label of rows that stand in an epoch's last batches a second time, to give each rank as many.

        accelerate deals the micro batches to the ranks in turn, and fills up behind the last row of the data set.
        """
        args = self.args
        dealt_otherwise = args.train_sampling_strategy == "batch_rebalance"  # all rows once, in batches of other sizes
        if args.world_size == 1 or args.dataloader_drop_last or dealt_otherwise:
            return
        updates_per_epoch = -(-len(self.train_dataset) // args.global_batch_size)
        first = self.state.global_step % updates_per_epoch * args.gradient_accumulation_steps
        for number, batch in enumerate(batches, start=first):
            start = (number * args.world_size + args.process_index) * args.per_device_train_batch_size
            batch["labels"][max(len(self.train_dataset) - start, 0) :] = NO_LABEL_ID

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, SentimentOutput]:
        """In training the row's share of the global loss, in evaluation the plain mean cross-entropy of the batch.

        Raises:
            NonFiniteLossError: a loss is nan or infinite; told at once on the CPU, else by `LateLooks`.
        """
        if not model.training:
            inputs = {name: value for name, value in inputs.items() if name != "row_index"}
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        loss, outputs = training_loss(
            model,
            inputs,
            args=self.args,
            epoch=int(self.state.epoch or 0),
            modality_dropout=self.args.modality_dropout if self._has_two_modalities else 0.0,
            unimodal_loss_weight=self.args.unimodal_loss_weight if self._has_two_modalities else 0.0,
            balance=self._device_balance,
            weight_sum=num_items_in_batch,
        )
        step, rows = self.state.global_step + 1, inputs["row_index"]
        self.looks.look(loss, partial(self._judge_finite, "loss", step=step, moment=self._moment, row_index=rows))
        # Data parallel averages gradients over ranks, while each rank's loss is its share of the whole.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """As in Trainer, but the batches stay on the host, where `get_batch_samples` counts their labels."""
        placed, self.accelerator.device_placement = self.accelerator.device_placement, False
        try:
            return super().get_train_dataloader()
        finally:
            self.accelerator.device_placement = placed

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """As in Trainer, but --dataloader_drop_last, meant for training, drops no row of an evaluation."""
        with self._every_row():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As `get_eval_dataloader`."""
        with self._every_row():
            return super().get_test_dataloader(test_dataset)

    def predict(self, test_dataset: Dataset, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As in Trainer; any part's rows are checked to be counted once each."""
        self._judged = test_dataset
        try:
            return super().predict(test_dataset, *args, **kwargs)
        finally:
            self._judged = self.eval_dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """As in Trainer; rows that are grouped by length come in the same order on all ranks."""
        sampler = super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = seed
        return EpochLengthSampler(sampler, seed=seed) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _get_dataloader(self, dataset: Dataset, *args: Any, **kwargs: Any) -> DataLoader:
        return super()._get_dataloader(BatchReader(dataset), *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Tensor]) -> int:
        """0: Trainer's estimate counts every pixel as a token and would be logged as a figure."""
        return 0

    @contextmanager
    def _every_row(self) -> Iterator[None]:
        args, self.args = self.args, self.args.replace(dataloader_drop_last=False)
        try:
            yield
        finally:
            self.args = args

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """As in Trainer; an infinite gradient, which clipping would turn into nan in every weight, ends training."""
        norm = super()._get_grad_norm(model, grad_norm)
        # Under float16 infinite gradients are the scaler's daily business: it skips the update by itself.
        if norm is not None and not self.args.fp16:
            # DeepSpeed makes the update with the backward pass, and tells the norm afterwards, as a number.
            moment = "after" if self.is_deepspeed_enabled else self._moment
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP's lies in parts on the ranks
            judge = partial(self._judge_finite, "gradient's norm", step=self.state.global_step + 1, moment=moment)
            self.looks.look(norm, judge) if isinstance(norm, Tensor) else judge(norm)
        self.looks.end_update()
        return norm

    def _judge_finite(
        self, name: str, value: float, *, step: int, moment: str, row_index: Tensor | None = None
    ) -> None:
        if not math.isfinite(value):
            rows = "" if row_index is None else f" (training rows {row_index.tolist()})"
            raise NonFiniteLossError(
                f"The {name} is {value} at step {step}{rows}; stopped {moment} the update. {NON_FINITE_REMEDY}"
            )

    @property
    def _moment(self) -> str:
        """When it is known whether an update is sound; see `LateLooks`."""
        return "before" if self.args.device.type == "cpu" else "after"

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        labels, row_index = prediction.label_ids
        check_rows_counted_once(torch.from_numpy(row_index), len(self._judged))
        if not np.isfinite(prediction.predictions).all():
            raise NonFiniteLossError(
                f"The model's answers are not finite after step {self.state.global_step}. {NON_FINITE_REMEDY}"
            )
        metrics = SentimentMetrics(self.labels).compute(predictions=softmax(prediction.predictions), references=labels)
        return {name: metrics[name] for name in METRICS if name != "loss"}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, C) of any precision -> probabilities (N, C) in float64."""
    return torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(dim=-1).numpy()
