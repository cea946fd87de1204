"""Training on the output of frozen towers: each runs once over the data, and what it gave comes from the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor

from data_utils.prepare.batches import BatchReader
from data_utils.prepare.cache import SCHEMA_VERSION, build_once, cache_folder, was_built_after
from data_utils.prepare.collator import FeatureColumn, PairCollator, refuse_several_pictures
from data_utils.prepare.columns import PRESENT, ROW_INDEX, SOURCE
from data_utils.prepare.pairs import add_row_index, join_columns
from data_utils.sources.arguments import DataArguments
from data_utils.splits.groups import find_copies
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from training.data.data import TrainingData
from training.data.feature_pass import FeaturePass, sequence_dtype
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments

logger = logging.getLogger(__name__)
NAME = "features"
# Rows of one cache folder: ranks build different ones, and a pass that was cut off goes on with the next.
ROWS_PER_PART = 4096
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
    """As `cache_features` for the rows of all parts; `InputError` also for flags by tokens that nobody reads."""
    chosen = choose_columns(model, model_args.cache_features, dtype=sequence_dtype(args.mixed_precision))
    by_tokens = {
        "train_sampling_strategy": args.train_sampling_strategy in BY_LENGTH,
        "include_num_input_tokens_seen": args.include_num_input_tokens_seen != "no",
    }
    for flag in by_tokens if SOURCE["text"] in _list_unread(model, chosen) else ():
        if by_tokens[flag]:
            raise InputError(
                f"Got --{flag} {getattr(args, flag)}, which goes by the texts' tokens, but no texts are read (their "
                "vectors are cached, or the head uses none); leave it out, or set --cache_features false."
            )
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
    """The N tokenised rows with what is frozen gave for them in place of inputs that nobody reads, and their collator.

    Texts and pictures are cached apart, under a key of the frozen weights, the tower's settings, the precision and
    the rows' content. The ranks of a machine share the work.

    Args:
        cache_features: None: only where all towers are frozen wholly; False: never; True: wherever anything is frozen.
        rows: those that are needed, as to `dataset.select`; the others get no features.
        args: device, precision and workers of the pass.
        overwrite: run the towers again.

    Raises:
        InputError: `cache_features` is True and nothing is there to cache, or the cache can't be written.
    """
    chosen = choose_columns(model, cache_features, dtype=sequence_dtype(args.mixed_precision))
    unread = _list_unread(model, chosen)
    if not chosen:
        return dataset.remove_columns(unread), collator
    if "image" in chosen:
        remedy = "where the output of frozen towers is cached, as for a sweep; a training takes --cache_features false"
        refuse_several_pictures(dataset, collator.image_size, remedy)
    begin, started = time.perf_counter(), time.time()
    stored = add_row_index(Dataset(dataset.data, info=dataset.info.copy()))
    wanted = np.zeros(len(stored), dtype=bool)
    rows = np.asarray(rows)  # by their places in `dataset.data`:
    wanted[rows if dataset._indices is None else dataset._indices.column(0).to_numpy()[rows]] = True
    machine = (args.device, args.mixed_precision, args.dataloader_num_workers)
    passes = {kind: FeaturePass(model, kind, columns, collator, *machine) for kind, columns in chosen.items()}
    found = _load_features(passes, stored, wanted, cache_dir=cache_dir, overwrite=overwrite, started=started)
    for features in found.values():
        dataset = join_columns(dataset, features)
    columns = tuple(column for kind in chosen for column in chosen[kind])
    _tell(columns, wanted.sum(), found.values(), began=started, seconds=time.perf_counter() - begin)
    return dataset.remove_columns(unread), replace(collator, features=columns)


def _tell(
    columns: Sequence[FeatureColumn], num_rows: int, found: Iterable[Dataset], *, began: float, seconds: float
) -> None:
    files = [Path(file["filename"]) for features in found for file in features.cache_files]
    logger.info(
        "Output of frozen parts: %s of %d rows (%.1f MB) %s %.1f s.",
        ", ".join(column.name for column in columns),
        num_rows,
        sum(file.stat().st_size for file in files) / 1e6,
        "computed in" if any(was_built_after(file.parent, began) for file in files) else "found in the cache in",
        seconds,
    )


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
    chosen: dict[str, tuple[FeatureColumn, ...]] = {}
    for kind, tower in towers.items():
        if tower.is_frozen:
            vector = FeatureColumn(f"{kind}_vector", tower.width)
            tokens = FeatureColumn(f"{kind}_tokens", tower.token_width, dtype)
            chosen[kind] = (vector, tokens) if kind in model.fusion.reads_tokens else (vector,)
        elif tower.frozen_blocks.num_frozen:
            chosen[kind] = (FeatureColumn(f"{kind}_hidden", tower.token_width, dtype),)
    if cache_features and not chosen:
        raise InputError("Got --cache_features, but no tower has a frozen block; see --freeze and --unfreeze_last.")
    return chosen


def _list_unread(model: SentimentClassifier, chosen: dict[str, tuple[FeatureColumn, ...]]) -> list[str]:
    """Columns of inputs that no tower reads: the head has none for them, or what is cached stands in their place.

    Text tokens and what is behind frozen blocks still need input_ids, for masks and positions; pictures nothing.
    """
    read = set(model.towers()) - chosen.keys()
    if not all(feature.is_vector for feature in chosen.get("text", ())):
        read.add("text")
    return [column for kind, column in SOURCE.items() if kind not in read]


def _load_features(
    passes: dict[str, FeaturePass],
    stored: Dataset,
    wanted: np.ndarray,
    *,
    cache_dir: Path,
    overwrite: bool,
    started: float,
) -> dict[str, Dataset]:
    """For each pass the N rows with its columns, computed or found; the ranks of a machine share the work.

    Args:
        stored: N rows with input_ids, image, image_key and row_index, without a `select` in between.
        wanted: (N,) bool; the other rows are null.
        overwrite: run the passes again, if no rank has done so since `started`, seconds since the epoch.
    """
    starts = range(0, len(stored), ROWS_PER_PART)
    jobs = [(kind, range(start, min(start + ROWS_PER_PART, len(stored)))) for kind in passes for start in starts]
    first = len(jobs) * int(os.environ.get("LOCAL_RANK", "0")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    settings = {kind: _describe(work) for kind, work in passes.items()}
    found = {}
    for kind, rows in jobs[first:] + jobs[:first]:
        work, columns = passes[kind], passes[kind].columns
        content = _hash_rows(stored, kind, np.flatnonzero(wanted[rows.start : rows.stop]) + rows.start, rows)
        key = _key(settings[kind], columns, content)
        if not overwrite and not cache_folder(cache_dir, NAME, key).exists() and len(columns) == 1:
            # A head that uses tokens may have left the vector beside them.
            tokens = FeatureColumn(f"{kind}_tokens", work.tower.token_width, sequence_dtype(work.precision))
            other = _key(settings[kind], (*columns, tokens), content)
            if columns[0].is_vector and cache_folder(cache_dir, NAME, other).exists():
                key, work = other, replace(work, columns=(*columns, tokens))
        inputs = stored.select_columns(["label", *PRESENT.values(), ROW_INDEX, SOURCE[kind]])
        part = build_once(
            cache_dir,
            NAME,
            key,
            partial(work.write, inputs, rows, wanted),
            # Another rank may have done it since this call began.
            overwrite=overwrite and not was_built_after(cache_folder(cache_dir, NAME, key), started),
            checked=all(column.is_vector for column in work.columns),  # sequences may fill the disk
        )
        found[kind, rows.start] = part.select_columns([column.name for column in columns])
    return {kind: concatenate_datasets([found[kind, start] for start in starts]) for kind in passes}


def _describe(work: FeaturePass) -> dict[str, Any]:
    """All that shapes the features beside the rows."""
    tower, config = work.tower, work.model.config
    settings: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "tower": config.text_tower if work.kind == "text" else config.vision_tower,
        "frozen_blocks": "all" if tower.is_frozen else tower.frozen_blocks.num_frozen,
        "weights": hash_weights(tower.frozen_weights()),
        "precision": work.precision,
    }
    if work.kind == "image":
        mean_and_std = [list(config.image_mean), list(config.image_std)]
        settings |= {"picture": config.picture, "normalisation": mean_and_std, "pillow": PIL.__version__.split(".")[0]}
    return settings


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash_rows(stored: Dataset, kind: str, wanted: np.ndarray, rows: range) -> str:
    """sha256 of what the tower reads of the wanted rows, and of where in the part they stand."""
    digest = hashlib.sha256(json.dumps([len(rows), (wanted - rows.start).tolist()]).encode())
    if kind == "image":
        keys = stored.data.column("image_key").take(pa.array(wanted)).to_pylist()
        digest.update(json.dumps(keys).encode())
    else:
        tokens = BatchReader(stored.select_columns([SOURCE[kind]])).__getitems__(wanted.tolist())[SOURCE[kind]]
        for row in tokens:
            digest.update(len(row).to_bytes(8, "big") + row.tobytes())
    return digest.hexdigest()


def _key(settings: dict[str, Any], columns: Sequence[FeatureColumn], content: str) -> str:
    parts = [settings, [asdict(column) for column in columns], content]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
