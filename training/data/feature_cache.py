"""The cache of what frozen towers gave: its keys, and who builds which part of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
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
from data_utils.prepare.collator import FeatureColumn
from data_utils.prepare.columns import PRESENT, ROW_INDEX, SOURCE
from training.data.feature_pass import FeaturePass, sequence_dtype

NAME = "features"
# Rows of one cache folder: ranks build different ones, and a pass that was cut off goes on with the next.
ROWS_PER_PART = 4096


def load_features(
    passes: dict[str, FeaturePass],
    stored: Dataset,
    wanted: np.ndarray,
    *,
    cache_dir: Path,
    overwrite: bool,
    started: float,
) -> dict[str, Dataset]:
    """Run the passes over the rows, or find in the cache what they gave; the ranks of a machine share the work.

    Args:
        passes: by "text" and "image".
        stored: N rows with input_ids, image, image_key and row_index, without a `select` in between.
        wanted: (N,) bool; the other rows are null.
        cache_dir: folder of all caches.
        overwrite: run them again, if no rank has done so since `started`, seconds since the epoch.

    Returns:
        For each pass N rows with its columns.
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
        if not overwrite and not cache_folder(cache_dir, NAME, key).exists():
            # A head that uses tokens may have left the vector beside them.
            key, work = _find_with_tokens(work, settings[kind], content, cache_dir) or (key, work)
        part = build_once(
            cache_dir,
            NAME,
            key,
            partial(work.write, _inputs_of(stored, kind), rows, wanted),
            # Another rank may have done it since this call began.
            overwrite=overwrite and not was_built_after(cache_folder(cache_dir, NAME, key), started),
            checked=all(column.is_vector for column in work.columns),  # sequences may fill the disk
        )
        found[kind, rows.start] = part.select_columns([column.name for column in columns])
    return {kind: concatenate_datasets([found[kind, start] for start in starts]) for kind in passes}


def _find_with_tokens(
    work: FeaturePass, settings: dict[str, Any], content: str, cache_dir: Path
) -> tuple[str, FeaturePass] | None:
    """Key and pass of a cache that holds the wanted vector beside tokens, if there is one."""
    if len(work.columns) > 1 or not work.columns[0].is_vector:
        return None
    width, dtype = work.model.towers()[work.kind].token_width, sequence_dtype(work.precision)
    both = (*work.columns, FeatureColumn(f"{work.kind}_tokens", width, dtype))
    key = _key(settings, both, content)
    return (key, replace(work, columns=both)) if cache_folder(cache_dir, NAME, key).exists() else None


def _inputs_of(stored: Dataset, kind: str) -> Dataset:
    return stored.select_columns(["label", *PRESENT.values(), ROW_INDEX, SOURCE[kind]])


def _describe(work: FeaturePass) -> dict[str, Any]:
    """All that shapes the features beside the rows."""
    tower, config = work.model.towers()[work.kind], work.model.config
    settings = {
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
        digest.update(values.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_rows(stored: Dataset, kind: str, wanted: np.ndarray, rows: range) -> str:
    """sha256 of what the tower reads of the wanted rows, and of where in the part they stand."""
    digest = hashlib.sha256(json.dumps([len(rows), (wanted - rows.start).tolist()]).encode())
    if kind == "image":
        keys = stored.data.column("image_key").take(pa.array(wanted)).to_pylist()
        digest.update(json.dumps(keys).encode())
    else:
        tokens = BatchReader(stored.select_columns([SOURCE[kind]])).__getitems__(wanted)[SOURCE[kind]]
        for row in tokens:
            digest.update(len(row).to_bytes(8, "big") + row.tobytes())
    return digest.hexdigest()


def _key(settings: dict[str, Any], columns: Sequence[FeatureColumn], content: str) -> str:
    parts = [settings, [asdict(column) for column in columns], content]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
