"""A light training loop for heads over frozen towers: the same updates as the Trainer's, in a fraction of its time.

Where the towers' output is cached, an update of a head takes a few milliseconds, and what the Trainer does around it
takes as long again. What an update computes is shared with `SentimentTrainer`: loss, groups, optimizer, schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import get_scheduler, set_seed

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import WEIGHT, model_inputs
from evaluation.scores.metrics import classification_metrics
from modeling.classifier import SentimentClassifier
from training.engine.deferred_checks import DeferredChecks
from training.engine.objective import ClassBalance, balance_classes, group_parameters, training_loss
from training.engine.trainer import NonFiniteLossError, SentimentTrainer, to_probabilities
from training.flags.arguments import SentimentTrainingArguments
from training.flags.own import METRICS

# A mask is drawn as 16 bits an entry: the rate is exact to 1 / 65536.
_LOWEST, _SPAN = -(1 << 15), 1 << 16


class FeatureRows:
    """Rows whose towers have run: in memory where they are vectors, read from the cache where they are sequences.

    Attributes:
        labels: (N,) class ids.
        are_light: whether they are vectors on a CPU. A second thread then hardly shortens an update: trials train side
            by side, with a thread each.
        home: device on which rows are named.
    """

    def __init__(self, dataset: Dataset, collator: PairCollator, device: torch.device) -> None:
        """`dataset` has features in all of its N rows, of which `collator` makes batches."""
        self._reader, self._collator, self._device = BatchReader(dataset), collator, device
        self.labels = torch.as_tensor(dataset["label"][:])
        are_vectors = all(column.is_vector for column in collator.features)
        self.are_light = are_vectors and device.type == "cpu"
        self._stored = self._read(range(len(dataset))) if are_vectors else None
        # Where rows are to be named, so that no batch waits for a copy of their numbers.
        self.home = torch.device("cpu") if self._stored is None else device

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The forward's inputs and labels of some rows (B,), named at `home`, and their numbers as row_index."""
        if self._stored is None:
            return self._read(rows.tolist())
        return {name: values[rows] for name, values in self._stored.items()}

    def _read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        batch = self._collator(self._reader.__getitems__(rows))
        return {name: values.to(self._device) for name, values in batch.items()}


@dataclass(frozen=True)
class Judgement:
    """An evaluation after an epoch: probabilities (M, C) of the validation rows, and `METRICS` of them.

    `held_out` are those of rows that choose nothing, where the best epoch is to be judged by such.
    """

    epoch: int
    probabilities: NDArray[np.float64]
    metrics: Mapping[str, float]
    held_out: NDArray[np.float64] | None = None


def train_head(
    model: SentimentClassifier,
    rows: FeatureRows,
    train_rows: Tensor,
    val_rows: Tensor,
    held_out: Tensor,
    *,
    args: SentimentTrainingArguments,
    stop: Event,
) -> tuple[Judgement, Judgement]:
    """Train as train.py does with the same flags on one process, dropout's random numbers aside.

    On light rows it may run in any thread, beside others: its figures are the same.

    Args:
        model: on the device of `args`, with initial weights; its trained parameters change.
        rows: N rows.
        train_rows, val_rows: numbers of the parts' rows, ascending, (T,) and (M,).
        held_out: those of rows that are judged after the best epoch alone, (H,); there may be none.
        args: flags of the training.
        stop: once it is set, no further update is made.

    Returns:
        The evaluation after the best epoch, and that after the last one.

    Raises:
        NonFiniteLossError: a loss, a gradient or an answer isn't finite.
        CancelledError: `stop` was set.
    """
    balance = balance_classes(args, torch.bincount(rows.labels[train_rows], minlength=model.config.num_labels))
    update = _Update(model, balance, args, num_rows=len(train_rows), is_light=rows.are_light)
    sampler = SeedableRandomSampler(
        range(len(train_rows)), data_seed=args.seed if args.data_seed is None else args.data_seed
    )
    judged: list[Judgement] = []  # the best and the last: of all, a long training would fill the memory
    name, sign = str(args.metric_for_best_model).removeprefix("eval_"), 1 if args.greater_is_better else -1
    train_rows = train_rows.to(rows.home)
    for epoch in range(int(args.num_train_epochs)):
        model.train()
        sampler.set_epoch(epoch)
        for numbers in torch.tensor(list(sampler)).to(rows.home).split(update.num_rows):
            if stop.is_set():
                raise CancelledError
            # Modality dropout goes by a row's number in the training part.
            update(rows.batch(train_rows[numbers]) | {"row_index": numbers.to(args.device)}, epoch=epoch)
        update.checks.finish()
        last = _judge(model, rows, val_rows, epoch + 1, args)
        best = max([*judged[:1], last], key=lambda each: sign * each.metrics[name])  # the first of several
        if best is last and len(held_out):
            best = replace(last, held_out=_judge(model, rows, held_out, epoch + 1, args).probabilities)
        judged = [best, last]
    return judged[0], judged[1]


class _Update:
    """One step of the optimizer at a call."""

    def __init__(
        self,
        model: SentimentClassifier,
        balance: ClassBalance,
        args: SentimentTrainingArguments,
        *,
        num_rows: int,
        is_light: bool,
    ) -> None:
        if not is_light:
            set_seed(args.seed)
        self._dropout = TrialDropout(args.seed) if is_light else nullcontext()
        self.num_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
        self.checks = DeferredChecks()
        self._model, self._args = model, args
        self._balance = balance.to(args.device)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # A method that reads nothing of its Trainer.
        decayed = set(SentimentTrainer.get_decay_parameter_names(None, model))
        optimizer_class, options = SentimentTrainer.get_optimizer_cls_and_kwargs(args, model)
        self._optimizer = optimizer_class(group_parameters(model, decayed=decayed, args=args), **options)
        num_updates = math.ceil(num_rows / self.num_rows) * int(args.num_train_epochs)
        self._schedule = get_scheduler(
            args.lr_scheduler_type,
            optimizer=self._optimizer,
            num_warmup_steps=args.get_warmup_steps(num_updates),
            num_training_steps=num_updates,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )

    def __call__(self, batch: dict[str, Tensor], *, epoch: int) -> None:
        with _autocast(self._args), self._dropout:
            loss, _ = training_loss(
                self._model,
                batch,
                config=self._model.config,
                args=self._args,
                epoch=epoch,
                has_both=len(self._model.towers()) == 2,
                balance=self._balance,
                weight_sum=(self._balance.weights[batch["labels"]] * batch.get(WEIGHT, 1)).sum(),
            )
        loss.backward()
        norm = loss
        if self._args.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._args.max_grad_norm)
        self.checks.add(torch.stack([loss, norm]), partial(_judge_finite, epoch=epoch))
        self.checks.end_update()
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


def _judge_finite(values: Sequence[float], *, epoch: int) -> None:
    loss, norm = values
    if not math.isfinite(loss + norm):
        raise NonFiniteLossError(f"loss {loss:.3g}, gradient {norm:.3g} in epoch {epoch + 1}")


def _judge(
    model: SentimentClassifier, rows: FeatureRows, val_rows: Tensor, epoch: int, args: SentimentTrainingArguments
) -> Judgement:
    model.eval()
    logits = []
    with torch.no_grad(), _autocast(args):
        for part in val_rows.to(rows.home).split(args.per_device_eval_batch_size):
            logits.append(model(**model_inputs(rows.batch(part))).logits.float())
    answers, labels = torch.cat(logits).cpu(), rows.labels[val_rows]
    if not torch.isfinite(answers).all():
        raise NonFiniteLossError(f"answers are not finite after epoch {epoch}")
    probabilities = to_probabilities(model.config, answers.numpy())
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    metrics = classification_metrics(probabilities, labels.numpy(), names)
    metrics["loss"] = F.cross_entropy(answers, labels).item()
    return Judgement(epoch, probabilities, {name: metrics[name] for name in METRICS["single_label"]})


def _autocast(args: SentimentTrainingArguments) -> torch.autocast:
    # The cache of cast weights is one for all threads, and a head uses each weight once.
    return torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16, cache_enabled=False)


class TrialDropout(TorchFunctionMode):
    """Within, this thread's dropout is drawn from a stream that depends on the seed alone.

    torch draws from one generator for the process, in whatever order threads come to it, and takes no other. The stream
    is numpy's SFC64, which takes half the time of torch's Bernoulli numbers besides.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._stream = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._drop(*args, **kwargs)
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _drop(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        bits = self._stream.integers(_LOWEST, _LOWEST + _SPAN, size=x.shape, dtype=np.int16)
        kept = torch.from_numpy(bits) >= _LOWEST + round(p * _SPAN)
        return x * kept.to(x.dtype).mul_(1 / (1 - p))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float, **options: Any) -> Tensor:
        # Of an identity matrix the kernel gives its weights, (B, H, S, T), which it drops without being asked how.
        identity = torch.eye(key.shape[-2], dtype=key.dtype).expand(*key.shape[:-2], -1, -1)
        return self._drop(F.scaled_dot_product_attention(query, key, identity, **options), dropout_p) @ value
