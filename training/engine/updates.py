"""Which rows the updates of a training take, and how many updates there are."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import torch
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers import SchedulerType
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from data_utils.prepare.batches import BatchReader
from modeling.errors import InputError
from training.flags.arguments import SentimentTrainingArguments

logger = logging.getLogger(__name__)


class EpochLengthSampler(LengthGroupedSampler):
    """transformers' sampler of rows by length, in an order that depends on seed and epoch alone.

    Its own order is drawn from torch's random numbers, of which dropout takes more on ranks with longer texts: from the
    second epoch on the ranks would deal from different orders, so that rows were trained on twice and others never.
    """

    def __init__(self, batch_size: int, lengths: list[int], *, seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate calls it before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self._seed + self._epoch)
        return super().__iter__()


def make_sampler(rows: BatchReader, args: SentimentTrainingArguments, *, is_training: bool) -> Sampler:
    """The order of rows as --train_sampling_strategy says; in an evaluation their own, or by length as well."""
    seed = args.seed if args.data_seed is None else args.data_seed
    strategy, accumulation = args.train_sampling_strategy, args.gradient_accumulation_steps
    by_length = strategy == "group_by_length" or (strategy == "batch_rebalance" and is_training)
    lengths = rows.lengths.tolist() if by_length and rows.lengths is not None else []
    if strategy == "group_by_length":
        size = args.train_batch_size * accumulation if is_training else args.eval_batch_size
        return EpochLengthSampler(size, lengths, seed=seed)
    if by_length:
        return BatchRebalanceSampler(
            lengths,
            args.train_batch_size * accumulation * args.world_size,
            dp_size=args.world_size,
            grad_accum=accumulation,
            seed=seed,
            rank=args.process_index,
            drop_last=args.dataloader_drop_last,
        )
    return RandomSampler(rows) if is_training and strategy == "random" else SequentialSampler(rows)


def check_updates(num_rows: int, args: SentimentTrainingArguments) -> None:
    """`InputError` where an epoch of `num_rows` rows has no batch."""
    if _count_batches(num_rows, args):
        return
    largest = num_rows // args.world_size
    advice = f"take at most {largest}" if largest else f"launch at most {num_rows} processes"
    processes = "" if args.world_size == 1 else f" on each of {args.world_size} processes"
    raise InputError(
        f"{num_rows} rows for training don't fill one batch of --per_device_train_batch_size "
        f"{args.per_device_train_batch_size}{processes}, and --dataloader_drop_last leaves out what fills none: no "
        f"update would be made. Leave --dataloader_drop_last out, or {advice}."
    )


def warn_of_idle_updates(num_rows: int, args: SentimentTrainingArguments) -> None:
    """Say so where every update has a learning rate of 0, or one of a warm-up that doesn't end."""
    per_epoch = math.ceil(_count_batches(num_rows, args) / args.gradient_accumulation_steps)
    num_updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    warmup = args.get_warmup_steps(num_updates)
    if args.learning_rate == args.head_learning_rate == 0:
        logger.warning("The learning rates are 0: the model stays as it is. Raise --head_learning_rate.")
    elif warmup >= num_updates and args.lr_scheduler_type != SchedulerType.CONSTANT:
        logger.warning(
            "All updates of this training (%d) lie in its warm-up of %d, which begins at a learning rate of 0 and "
            "reaches %.3g of its peak: the model hardly changes. Take more updates, or a lower --warmup_steps.",
            *(num_updates, warmup, (num_updates - 1) / warmup),
        )


def _count_batches(num_rows: int, args: SentimentTrainingArguments) -> int:
    """Batches of each rank in an epoch, as accelerate deals them."""
    size, ranks = args.per_device_train_batch_size, args.world_size
    return num_rows // size // ranks if args.dataloader_drop_last else -(-num_rows // (size * ranks))
