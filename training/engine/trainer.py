"""transformers.Trainer with this project's loss, learning rates, modality dropout and checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import EvalPrediction
from transformers.integrations.neftune import activate_neftune
from transformers.trainer_pt_utils import BatchRebalanceSampler
from transformers.trainer_utils import EvalLoopOutput

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import LABELS, WEIGHT, model_inputs
from data_utils.system.refusals import RankError
from evaluation.predict.inference import check_rows_counted_once
from evaluation.scores.metrics import SentimentMetrics
from evaluation.scores.scoring import measure_predictions
from modeling.batch import SentimentOutput, drop_labels, read_logits
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from training.engine.objective import ClassBalance, balance_labels, group_parameters, training_loss
from training.engine.resumable import ResumableTrainer
from training.engine.updates import make_sampler
from training.flags.arguments import SentimentTrainingArguments
from training.flags.own import METRICS
from training.launch.signals import is_stop_requested
from training.launch.trackers import keep_trackers_open

NON_FINITE_REMEDY = (
    "Lower --learning_rate or --head_learning_rate, use --bf16 or float32 instead of --fp16, or resume from an earlier "
    "checkpoint."
)


class NonFiniteLossError(RankError):
    """The loss, a gradient or an answer became nan or infinite; no further update is made."""


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
        self._has_both = len(model.towers()) == 2
        self.config = model.config
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
        self._eval_loader: DataLoader | None = None
        self._trackers = keep_trackers_open(self.callback_handler)
        self.neftune_noise_alpha = None  # Trainer would look for one table of embeddings of the whole model
        if args.neftune_noise_alpha:
            self._make_noisy(model, args.neftune_noise_alpha)

    def _make_noisy(self, model: SentimentClassifier, alpha: float) -> None:
        """Add noise to the embeddings of words, in training mode alone."""
        encoder = model.towers()["text"].encoder
        try:
            activate_neftune(encoder, alpha)
        except (AttributeError, NotImplementedError) as error:
            raise InputError(
                f"Got --neftune_noise_alpha, but {type(encoder).__name__} names no embeddings of words; leave it out."
            ) from error

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
        """The micro batches of one update, and the sum of their rows' weights over all ranks."""
        batches = list(islice(epoch_iterator, num_batches))
        self._mask_padding_duplicates(batches)
        weight_sum = torch.zeros(())
        if batches:
            names = [name for name in (LABELS, WEIGHT) if name in batches[0]]
            weight_sum = self.balance.sum_weights(*(torch.cat([batch[name] for batch in batches]) for name in names))
        # Every rank learns here, at no further cost, whether any was asked to stop.
        sums = torch.stack([weight_sum, torch.tensor(float(is_stop_requested()))])
        # From pinned memory an accelerator copies while the host goes on.
        sums = sums.pin_memory() if self.args.dataloader_pin_memory else sums
        batches, sums = send_to_device((batches, sums), device, non_blocking=True)
        sums = self.accelerator.reduce(sums, reduction="sum")
        self.checks.add(sums, self._read_sums)
        return batches, sums[0]

    def _read_sums(self, sums: Sequence[float]) -> None:
        """Of an update over all ranks: the rows' class weights, and how many ranks were asked to stop."""
        self.stop_requested = sums[1] > 0

    def _balance_classes(self) -> ClassBalance:
        return balance_labels(self.args, torch.as_tensor(self.train_dataset["label"][:]), len(self.labels))

    def _mask_padding_duplicates(self, batches: list[dict[str, Tensor]]) -> None:
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
            real = torch.arange(len(batch[LABELS])) + start < len(self.train_dataset)
            batch[LABELS] = drop_labels(batch[LABELS], real)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, SentimentOutput]:
        """In training the row's share of the global loss, in evaluation the plain mean loss of the batch.

        Raises:
            NonFiniteLossError: a loss is nan or infinite; told at once on the CPU, else by `DeferredChecks`.
        """
        if not model.training:
            outputs = model(**model_inputs(inputs), labels=inputs[LABELS])
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        loss, outputs = training_loss(
            model,
            inputs,
            config=self.config,
            args=self.args,
            epoch=int(self.state.epoch or 0),
            has_both=self._has_both,
            balance=self._device_balance,
            weight_sum=num_items_in_batch,
        )
        step, rows = self.state.global_step + 1, inputs["row_index"]
        self.checks.add(loss, partial(self._check_finite, "loss", step=step, moment=self._moment, row_index=rows))
        # Data parallel averages gradients over ranks, while each rank's loss is its share of the whole.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """Batches that stay on the host, where `get_batch_samples` counts their labels."""
        return self._make_loader(self.train_dataset, is_training=True)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Batches of all rows: --dataloader_drop_last is meant for training."""
        if self._eval_loader is None or not self.args.dataloader_persistent_workers:
            rows = self.eval_dataset if eval_dataset is None else eval_dataset
            self._eval_loader = self._make_loader(rows, is_training=False)
        return self._eval_loader

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As `get_eval_dataloader`."""
        return self._make_loader(test_dataset, is_training=False)

    def _make_loader(self, dataset: Dataset, *, is_training: bool) -> DataLoader:
        args, rows = self.args, BatchReader(dataset)
        sampler = make_sampler(rows, args, is_training=is_training)
        deals_by_itself = isinstance(sampler, BatchRebalanceSampler)
        if deals_by_itself:
            order: dict[str, Any] = {"batch_sampler": sampler}
        else:
            size = args.train_batch_size if is_training else args.eval_batch_size
            drop_last = args.dataloader_drop_last and is_training
            order = {"sampler": sampler, "batch_size": size, "drop_last": drop_last}
        loader = DataLoader(
            rows,
            **order,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        prepared = self.accelerator.prepare_data_loader(loader, device_placement=not is_training)
        if deals_by_itself and args.world_size > 1:  # or its batches would be dealt once more
            prepared.batch_sampler.num_processes, prepared.batch_sampler.process_index = 1, 0
        return prepared

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in Trainer, with the averaged weights; any part's rows are checked to be counted once each."""
        with nullcontext() if self.average is None else self.average.in_use():
            found = super().evaluation_loop(dataloader, *args, **kwargs)
        check_rows_counted_once(torch.from_numpy(found.label_ids[1]), self.num_examples(dataloader))
        return found

    def floating_point_ops(self, inputs: dict[str, Tensor]) -> int:
        """0: Trainer's estimate counts every pixel as a token and would be logged as a figure."""
        return 0

    def check_gradient(self, norm: Tensor | float | None) -> None:
        """End training at an infinite gradient, which clipping would turn into nan in every weight."""
        # Under float16 GradScaler skips such updates.
        if norm is not None and not self.args.fp16:
            # DeepSpeed makes the update with the backward pass, and tells the norm afterwards, as a number.
            moment = "after" if self.is_deepspeed_enabled else self._moment
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP's lies in parts on the ranks
            check = partial(self._check_finite, "gradient's norm", step=self.state.global_step + 1, moment=moment)
            self.checks.add(norm, check) if isinstance(norm, Tensor) else check(norm)
        self.checks.end_update()

    def _check_finite(
        self, name: str, value: float, *, step: int, moment: str, row_index: Tensor | None = None
    ) -> None:
        if not math.isfinite(value):
            rows = "" if row_index is None else f" (training rows {row_index.tolist()})"
            raise NonFiniteLossError(
                f"The {name} is {value} at step {step}{rows}; stopped {moment} the update. {NON_FINITE_REMEDY}"
            )

    @property
    def _moment(self) -> str:
        """When it is known whether an update is sound; see `DeferredChecks`."""
        return "before" if self.args.device.type == "cpu" else "after"

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        labels, row_index = prediction.label_ids
        if not np.isfinite(prediction.predictions).all():
            raise NonFiniteLossError(
                f"The model's answers are not finite after step {self.state.global_step}. {NON_FINITE_REMEDY}"
            )
        values = to_probabilities(self.config, prediction.predictions)
        if self.config.task == "single_label":
            metrics = SentimentMetrics(self.labels).compute(predictions=values, references=labels)
        else:
            order = row_index.argsort()  # thresholds are cross-fitted by it
            metrics = measure_predictions(values[order], labels[order], self.labels)
        return {name: metrics[name] for name in METRICS[self.config.task] if name != "loss"}


def to_probabilities(config: SentimentConfig, logits: np.ndarray) -> np.ndarray:
    """`modeling.batch.read_logits` of logits (N, C) of any precision, in float64."""
    return read_logits(config, torch.from_numpy(np.asarray(logits, dtype=np.float64))).numpy()
