"""Orders of rows that are grouped by length, the same on all ranks and in a resume."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from data_utils.prepare.batches import BatchReader
from training.flags.arguments import SentimentTrainingArguments


class EpochLengthSampler(LengthGroupedSampler):
    """transformers' sampler in an order that depends on seed and epoch alone.

    Its own order is drawn from torch's random numbers, of which dropout takes more on ranks with longer texts: from the
    second epoch on the ranks would deal from different orders, so that rows were trained on twice and others never.

    Args:
        batch_size: rows of like length that lie together.
        lengths: tokens of each row.
        seed: of the orders.
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
    if strategy == "group_by_length":
        size = args.train_batch_size * accumulation if is_training else args.eval_batch_size
        return EpochLengthSampler(size, rows.lengths.tolist(), seed=seed)
    if strategy == "batch_rebalance" and is_training:
        return BatchRebalanceSampler(
            rows.lengths.tolist(),
            args.train_batch_size * accumulation * args.world_size,
            dp_size=args.world_size,
            grad_accum=accumulation,
            seed=seed,
            rank=args.process_index,
            drop_last=args.dataloader_drop_last,
        )
    return RandomSampler(rows) if is_training and strategy == "random" else SequentialSampler(rows)
