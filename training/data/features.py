"""Training on the output of frozen towers: each runs once over the data, and what it gave comes from the cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from data_utils.prepare.cache import was_built_after
from data_utils.prepare.collator import FeatureColumn, PairCollator
from data_utils.prepare.columns import SOURCE
from data_utils.prepare.pairs import add_row_index, join_columns
from data_utils.sources.arguments import DataArguments
from data_utils.splits.copies import find_copies
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.data.data import TrainingData
from training.data.feature_cache import load_features
from training.data.feature_pass import FeaturePass, sequence_dtype
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments

logger = logging.getLogger(__name__)
# Of --train_sampling_strategy: those that look at the rows' texts.
BY_LENGTH = ("group_by_length", "batch_rebalance")


def use_features(
    model: SentimentClassifier,
    prepared: TrainingData,
    collator: PairCollator,
    *,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: SentimentTrainingArguments,
) -> tuple[TrainingData, PairCollator]:
    """As `cache_features` for the rows of all parts, as the flags say.

    Raises:
        InputError: see there; or a flag goes by the tokens of texts that nobody reads.
    """
    chosen = choose_columns(model, model_args.cache_features, dtype=sequence_dtype(args.mixed_precision))
    if SOURCE["text"] in _list_unread(model, chosen):
        _refuse_tokens(args)
    # Each fold leaves out other augmented copies: a pass over all of them serves every fold.
    copies = np.flatnonzero(find_copies(prepared.rows["guid"][:]))
    dataset, collator = cache_features(
        model,
        prepared.rows,
        collator,
        cache_features=model_args.cache_features,
        rows=np.union1d(prepared.used_rows, copies),
        cache_dir=data_args.cache_path(),
        args=args,
        overwrite=data_args.overwrite_cache,
    )
    return replace(prepared, rows=dataset), collator


def _refuse_tokens(args: SentimentTrainingArguments) -> None:
    """`InputError` for a flag that goes by the texts' tokens."""
    for flag, goes_by_them in (
        ("train_sampling_strategy", args.train_sampling_strategy in BY_LENGTH),
        ("include_num_input_tokens_seen", args.include_num_input_tokens_seen != "no"),
    ):
        if goes_by_them:
            raise InputError(
                f"Got --{flag} {getattr(args, flag)}, which goes by the texts' tokens, but no texts are read (their "
                "vectors are cached, or the head uses none); leave it out, or set --cache_features false."
            )


def cache_features(
    model: SentimentClassifier,
    dataset: Dataset,
    collator: PairCollator,
    *,
    cache_features: bool | None,
    rows: Sequence[int] | np.ndarray,
    cache_dir: Path,
    args: SentimentTrainingArguments,
    overwrite: bool = False,
) -> tuple[Dataset, PairCollator]:
    """Run what is frozen over the rows, or find in the cache what it gave; the same on every rank.

    Texts and pictures are cached apart, under a key of the frozen weights, the tower's settings, the precision and
    the rows' content. The ranks of a machine share the work.

    Args:
        model: with its weights; frozen as its configuration says.
        dataset: N tokenised rows, with image_key.
        collator: of the model's inputs.
        cache_features: None: only where all towers are frozen wholly; False: never; True: wherever anything is frozen.
        rows: those that are needed, as to `dataset.select`; the others get no features.
        cache_dir: folder of all caches.
        args: device, precision and workers of the pass.
        overwrite: run the towers again.

    Returns:
        The rows with columns of features and without inputs that nobody reads, and the collator of the features.

    Raises:
        InputError: `cache_features` is True and nothing is there to cache, or the cache can't be written.
    """
    chosen = choose_columns(model, cache_features, dtype=sequence_dtype(args.mixed_precision))
    unread = _list_unread(model, chosen)
    if not chosen:
        return dataset.remove_columns(unread), collator
    begin, started = time.perf_counter(), time.time()
    stored = add_row_index(Dataset(dataset.data, info=dataset.info.copy()))
    wanted = np.zeros(len(stored), dtype=bool)
    wanted[_stored_rows(dataset)[np.asarray(rows)]] = True
    passes = {
        kind: FeaturePass(
            model, kind, columns, collator, args.device, args.mixed_precision, args.dataloader_num_workers
        )
        for kind, columns in chosen.items()
    }
    found = load_features(passes, stored, wanted, cache_dir=cache_dir, overwrite=overwrite, started=started)
    for features in found.values():
        dataset = join_columns(dataset, features)
    columns = tuple(column for kind in chosen for column in chosen[kind])
    files = [Path(file["filename"]) for features in found.values() for file in features.cache_files]
    logger.info(
        "Output of frozen parts: %s of %d rows (%.1f MB) %s %.1f s.",
        ", ".join(column.name for column in columns),
        wanted.sum(),
        sum(file.stat().st_size for file in files) / 1e6,
        "computed in" if any(was_built_after(file.parent, started) for file in files) else "found in the cache in",
        time.perf_counter() - begin,
    )
    return dataset.remove_columns(unread), replace(collator, features=columns)


def choose_columns(
    model: SentimentClassifier, cache_features: bool | None, *, dtype: str
) -> dict[str, tuple[FeatureColumn, ...]]:
    """What of each tower is to be cached, by "text" and "image"; nothing of towers that train from their first block.

    Sequences are of type `dtype`, vectors of float32. Raises `InputError` where `cache_features` is True and no tower
    has a frozen block.
    """
    towers = model.towers()
    if cache_features is False or (cache_features is None and not all(tower.is_frozen for tower in towers.values())):
        return {}
    chosen = {}
    for kind, tower in towers.items():
        if tower.is_frozen:
            vector = FeatureColumn(f"{kind}_vector", tower.width)
            tokens = FeatureColumn(f"{kind}_tokens", tower.token_width, dtype)
            chosen[kind] = (vector, tokens) if kind in model.fusion.reads_tokens else (vector,)
        elif tower.frozen_blocks is not None and tower.frozen_blocks.num_frozen:
            chosen[kind] = (FeatureColumn(f"{kind}_hidden", tower.token_width, dtype),)
    if cache_features and not chosen:
        raise InputError(
            "Got --cache_features, but no tower has a frozen block; freeze one with --freeze, lower --unfreeze_last, "
            "or leave --cache_features out."
        )
    return chosen


def _list_unread(model: SentimentClassifier, chosen: dict[str, tuple[FeatureColumn, ...]]) -> list[str]:
    """Columns of inputs that no tower reads: the head has none for them, or what is cached stands in their place.

    Text tokens and what is behind frozen blocks still need input_ids, for masks and positions; pictures nothing.
    """
    towers = model.towers()
    return [
        column
        for kind, column in SOURCE.items()
        if kind not in towers
        or (kind in chosen and (kind == "image" or all(feature.is_vector for feature in chosen[kind])))
    ]


def _stored_rows(dataset: Dataset) -> np.ndarray:
    """Row of `dataset.data` of each row."""
    return np.arange(len(dataset)) if dataset._indices is None else dataset._indices.column(0).to_numpy()
