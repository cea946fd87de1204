"""From shards to the stream that the trainer sees, with nothing read but what the first batch needs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.tokens import check_max_length, tokenizer_key
from data_utils.shards.read import check_columns, find_text_encoding, open_shards, read_texts
from data_utils.shards.shard_set import ShardSet, find_shards
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.row_losses import LossRule
from data_utils.stream.loader import PairStream
from data_utils.stream.order import StreamSettings, count_batches
from data_utils.stream.part_cache import load_part
from data_utils.stream.rows import RowPreparer, check_first_rows, read_label
from modeling.errors import InputError
from modeling.text import clean_text
from run_files.run_folder import RunFolder
from training.build.plan import ModelPlan
from training.data.data import note_absent_classes, train_tokenizer
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments

logger = logging.getLogger(__name__)
# The texts, from the first shards on, that a WordPiece tokenizer is trained on.
TOKENIZER_TEXTS = 10_000
# Those that tell their encoding.
ENCODING_TEXTS = 1000


@dataclass(frozen=True)
class StreamedData:
    """What `TrainingData` is for a list: batches of this rank, the validation rows, and what they came from.

    The quarantine has what was wrong with validation rows; training rows are entered as they are met.
    """

    train: PairStream
    val: Dataset | None
    tokenizer: PreTrainedTokenizerBase
    quarantine: Quarantine
    text_encoding: str | None
    hashes: dict[str, str]
    test: None = None

    @property
    def num_train_rows(self) -> int | None:
        """Rows of an epoch; None where nobody counted them."""
        return self.train.shards.num_rows

    def count_labels(self, labels: Sequence[str]) -> dict[str, int] | None:
        """As `TrainingData.count_labels`; None also where nobody counted them."""
        counts = self.train.shards.label_counts
        return None if counts is None else {label: counts[label] for label in labels}

    def fingerprints(self) -> dict[str, str]:
        """As `TrainingData.fingerprints`; a stream's order also depends on who reads it, and not on where it ends."""
        return self.hashes

    def save(self, run: RunFolder) -> None:
        """Begin quarantine.csv, unless a run is gone on with; there is no split.json, as the shards hold the split."""
        if not run.quarantine_file.exists():
            self.quarantine.save(run.quarantine_file)

    def describe_cache(self) -> str:
        """How the rows come, for --dry_run."""
        shards = self.train.shards.shards
        size = sum(shard.size or 0 for shard in shards)
        return f"none: streamed from {len(shards)} shards of {size / 1e6:.1f} MB ({shards[0].url} and its like)"


def prepare_stream(
    data: DataArguments, plan: ModelPlan, args: SentimentTrainingArguments, model: ModelArguments
) -> StreamedData:
    """Set up the stream, and cache the validation part; `InputError` for shards that can't be used."""
    _check_flags(args, model)
    shards = _open_shards(data)
    _check_counts(shards, data, args)
    settings = _settings(shards, data, args)
    tokenizer = plan.tokenizer
    if tokenizer is None:
        texts = [clean_text(text, data.text_cleaning) for text in read_texts(shards, limit=TOKENIZER_TEXTS)]
        logger.info("The tokenizer is trained on the first %d texts of the stream.", len(texts))
        tokenizer = train_tokenizer(texts, plan, model)
    check_max_length(tokenizer, plan.max_length)
    prepare = RowPreparer(
        tokenizer=tokenizer,
        max_length=plan.max_length,
        picture=plan.picture,
        labels=data.labels,
        text_cleaning=data.text_cleaning,
        on_bad_pair=data.on_bad_pair,
        max_image_pixels=data.max_image_pixels,
    )
    if data.on_bad_pair != "error":  # which stops at the first fault
        _check_losses(shards, prepare, LossRule(data.data_dir, plan.reads, stops=not data.allow_data_loss))
    val, quarantine = _load_validation(data, prepare, shards.text_encoding)
    collator = PairCollator(tokenizer.pad_token_id, plan.picture.image_size, pin=args.dataloader_pin_memory)
    stream = PairStream(shards, settings, prepare=prepare, collator=collator)
    known = "an uncounted number of" if shards.num_rows is None else shards.num_rows
    logger.info("%s pairs for training in %d shards, streamed.", known, len(shards.shards))
    hashes = _fingerprints(stream, val, num_workers=max(1, args.dataloader_num_workers))
    return StreamedData(stream, val, tokenizer, quarantine, shards.text_encoding, hashes)


def _open_shards(data: DataArguments) -> ShardSet:
    """The shards for training, with the encoding of their texts that are bytes and don't tell their own."""
    remedy = "write them with python -m data_utils.shard, or leave --streaming out"
    shards = open_shards(data.data_dir, "train", labelled=True, remedy=remedy)
    encoding = data.text_encoding
    if encoding is None and shards.label_counts is None:  # data_utils.shard, which counts, writes UTF-8
        encoding = find_text_encoding(shards, limit=ENCODING_TEXTS)
        if encoding is not None:
            logger.info("Texts that are not UTF-8 are read as %s; --text_encoding names another encoding.", encoding)
    return shards.with_text_encoding(encoding)


def _check_flags(args: SentimentTrainingArguments, model: ModelArguments) -> None:
    """Refuse flags that a stream has no use for, and say so where a default does not hold."""
    if model.cache_features:
        raise InputError("Got --cache_features with --streaming; the features of a stream aren't kept: leave one out.")
    if args.train_sampling_strategy != "random":
        raise InputError(
            "Got --train_sampling_strategy with --streaming, where a shuffle buffer decides; leave one out."
        )
    if model.cache_features is None and model.trains_no_tower:
        logger.warning(
            "The features of a stream aren't kept: the frozen towers run over every row in every epoch. Where the rows "
            "fit on a disk, leave --streaming out."
        )


def _check_counts(shards: ShardSet, data: DataArguments, args: SentimentTrainingArguments) -> None:
    """Refuse flags that need a count of rows that nobody made."""
    remedy = f"write the shards in {data.data_dir} with python -m data_utils.shard, which counts"
    if shards.num_rows is None and args.max_steps <= 0:
        raise InputError(f"Nobody counted the rows, so there is no end of an epoch: give --max_steps, or {remedy}.")
    if args.balances_classes and shards.label_counts is None:
        flag = "class_weights" if args.class_weights != "none" else "logit_adjustment"
        raise InputError(f"Got --{flag}, but no shards.json counts the labels: {remedy}, or leave --{flag} out.")


def _settings(shards: ShardSet, data: DataArguments, args: SentimentTrainingArguments) -> StreamSettings:
    settings = StreamSettings(
        seed=args.seed if args.data_seed is None else args.data_seed,
        batch_size=args.per_device_train_batch_size,
        world_size=args.world_size,
        rank=args.process_index,
        buffer_size=data.shuffle_buffer_size,
        drop_last=args.dataloader_drop_last,
        num_batches=args.max_steps * args.gradient_accumulation_steps if shards.num_rows is None else None,
    )
    if shards.num_rows is not None:
        count_batches(shards.num_rows, settings)  # raises where there is none
    return settings


def _check_losses(shards: ShardSet, prepare: RowPreparer, rule: LossRule) -> None:
    """Refuse large losses: of labels by all that were counted, else, as of files, by a look at the first rows."""
    counts = shards.label_counts
    if counts is not None:
        lost = sum(count for label, count in counts.items() if read_label(label, prepare.labels)[1])
        rule.check_labels(lost, counts.total(), found=counts, labels=prepare.labels)
        note_absent_classes(counts, prepare.labels)
    check_first_rows(shards, prepare, rule)


def _load_validation(
    data: DataArguments, prepare: RowPreparer, encoding: str | None
) -> tuple[Dataset | None, Quarantine]:
    shards = find_shards(data.data_dir, "validation") if data.val_ratio > 0 else None
    if shards is None:
        return None, Quarantine()
    check_columns(shards, labelled=True)
    shards, cache_dir = shards.with_text_encoding(encoding), data.cache_path()
    dataset, quarantine = load_part(
        shards, prepare, cache_dir=cache_dir, limit=data.max_eval_samples, overwrite=data.overwrite_cache
    )
    if data.on_bad_pair == "error" and len(quarantine):
        raise InputError(f"Validation rows have faults and --on_bad_pair is error: {quarantine.summary()}.")
    return dataset, quarantine


def _fingerprints(stream: PairStream, val: Dataset | None, *, num_workers: int) -> dict[str, str]:
    shards, prepare = stream.shards, stream.prepare
    shaping: list[object] = [prepare.labels, prepare.text_cleaning, prepare.on_bad_pair, prepare.picture.to_dict()]
    shaping += [prepare.max_image_pixels, shards.text_encoding]
    order = asdict(stream.settings) | {"rank": None, "num_batches": None, "num_workers": num_workers}
    return {
        "data_fingerprint": _hash([shards.fingerprint, _hash(shaping)]),
        "split_sha256": _hash(None if val is None else val["guid"][:]),
        "rows_sha256": _hash([shards.fingerprint, order]),
        "tokens_sha256": _hash([tokenizer_key(prepare.tokenizer), prepare.max_length]),
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
