"""How many updates a training makes: one that makes none, or none that changes anything, is no training."""

from __future__ import annotations

import logging
import math

from modeling.errors import InputError
from training.flags.arguments import SentimentTrainingArguments

logger = logging.getLogger(__name__)


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
    num_batches = _count_batches(num_rows, args)
    if args.max_steps > 0:
        num_updates = args.max_steps
    else:
        num_updates = math.ceil(args.num_train_epochs * math.ceil(num_batches / args.gradient_accumulation_steps))
    if args.learning_rate == args.head_learning_rate == 0:
        logger.warning("The learning rates are 0: the model stays as it is. Raise --head_learning_rate.")
        return
    warmup = args.get_warmup_steps(num_updates)
    if warmup >= num_updates and args.lr_scheduler_type.value != "constant":
        logger.warning(
            "All updates of this training (%d) lie in its warm-up of %d, which begins at a learning rate of 0 and "
            "reaches %.3g of its peak: the model hardly changes. Take more updates, or a lower --warmup_steps.",
            *(num_updates, warmup, (num_updates - 1) / warmup),
        )


def _count_batches(num_rows: int, args: SentimentTrainingArguments) -> int:
    """Batches of each rank in an epoch, as accelerate deals them."""
    size, ranks = args.per_device_train_batch_size, args.world_size
    return num_rows // size // ranks if args.dataloader_drop_last else -(-num_rows // (size * ranks))
