"""Writing shards: which rows go into which, what is there already, and the manifest."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from data_utils.console.progress import progress
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pair_files import CellReader, PairSource
from data_utils.prepare.pairs import Pairs, load_pairs
from data_utils.shards.arguments import ShardArguments
from data_utils.shards.manifest import MANIFEST, VERSION, read_manifest, shard_name
from data_utils.shards.write import PlannedRow, PlannedShard, describe_shard, find_damage, write_shard
from data_utils.sources.arguments import DEFAULT_LABELS, DataArguments
from data_utils.sources.quarantine import QUARANTINE_FILE
from data_utils.splits.split_file import save_split
from data_utils.splits.splits import split_pairs
from data_utils.system.files import list_own, remove_leftovers, write_text
from data_utils.system.processes import limit_workers, run_tasks
from data_utils.tables.opening import open_asked, open_source, settle_labels
from modeling.errors import InputError
from modeling.pictures import PictureSettings

logger = logging.getLogger(__name__)
# Every picture is decoded once to know that it can be; nothing larger than a pixel is kept of it.
_DECODING = PictureSettings(image_size=1, shortest_edge=1, resize_mode="squash", resample=0)
_COMPARING = PictureSettings(image_size=64, shortest_edge=64, resize_mode="squash", resample=2)  # --group_by near


def write_shards(args: ShardArguments, data: DataArguments) -> dict[str, Any]:
    """Write all shards that aren't there whole, then the manifest, which is returned.

    A job that was killed goes on where it was. Validation is split off by group as in training. Rows of training and
    validation are in an order drawn from --seed, since a shuffle buffer couldn't mix a sorted list; rows for prediction
    stay in the list's order.

    Raises:
        InputError: the data can't be used, or the folder holds shards of other data or settings.
    """
    output, data = Path(args.output_dir), _settle(args, data)
    table = data.data if args.for_prediction else None
    source = open_source(data) if table is None else open_asked("--data", table, data)
    pairs = _load_rows(args, data, source)
    split, parts = None, {"test": np.arange(len(pairs.dataset))}
    if not args.for_prediction:
        split, *rows = split_pairs(pairs, data, seed=args.seed)
        mix = np.random.default_rng(args.seed)
        named = zip(("train", "validation", "test"), rows, strict=True)
        parts = {part: mix.permutation(rows) for part, rows in named if len(rows) or part != "test"}
    settings = {"format": args.shard_format, "rows_per_shard": args.rows_per_shard, "seed": args.seed}
    order = {part: hashlib.sha256(rows.tobytes()).hexdigest() for part, rows in parts.items()}
    shaping = json.dumps([VERSION, settings, pairs.fingerprint, order])  # all that the shards' bytes depend on
    known = {"labels": data.labels, "sha256": hashlib.sha256(shaping.encode()).hexdigest()}
    manifest = {"version": VERSION, **settings, **known, "complete": False, "parts": {}}
    sizes = _claim_folder(output, manifest)
    pairs.quarantine.save(output / QUARANTINE_FILE)
    pairs.quarantine.tell(output / QUARANTINE_FILE)
    if split is not None:
        save_split(split, output / "split.json")
    plans = {part: _plan_part(part, pairs, rows, args, data, source.read_cell) for part, rows in parts.items()}
    _write_missing(list(chain.from_iterable(plans.values())), sizes, num_workers=data.num_workers())
    entries = {part: [describe_shard(plan) for plan in found] for part, found in plans.items() if found}
    manifest |= {"complete": True, "parts": entries}
    _write_manifest(output, manifest)
    return manifest


def _settle(args: ShardArguments, data: DataArguments) -> DataArguments:
    """With labels: those of the data; rows for prediction need have none."""
    return replace(data, labels=data.labels or list(DEFAULT_LABELS)) if args.for_prediction else settle_labels(data)


def _load_rows(args: ShardArguments, data: DataArguments, source: PairSource) -> Pairs:
    pairs = load_pairs(
        source,
        data=replace(data, text_cleaning="none"),
        picture=_DECODING if data.group_by == "equal" else _COMPARING,
        for_prediction=args.for_prediction,
        needs=source.sides,
    )
    present = pairs.dataset.select_columns(["text_present", "image_present"])[:]
    if args.for_prediction and not any(map(any, present.values())):
        raise InputError(
            f"Found no text and no picture of the {len(pairs.dataset)} rows of {source.name} in {source.path}; the "
            f"first row is read as the guid {pairs.dataset[0]['guid']!r}. Check --data_dir (of a table the columns "
            "and --image_dir), and that a list holds lines of guid,tag, parted by commas."
        )
    return pairs


def _claim_folder(output: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """Begin, or go on with the same shards; others are never mixed with them.

    Returns:
        Bytes of each shard by its file's name, as an earlier job that finished noted them.

    Raises:
        InputError: the folder holds something else.
    """
    earlier = read_manifest(LocalFileSystem(), str(output))
    if earlier is None and output.is_dir() and list_own(output):
        raise InputError(f"--output_dir {output} holds other files; choose a folder of its own.")
    if earlier is not None and earlier.get("sha256") != manifest["sha256"]:
        raise InputError(
            f"{output} holds shards of other data or settings (see {output / MANIFEST}); choose another --output_dir, "
            "or delete that folder first."
        )
    parts = {} if earlier is None else earlier["parts"]
    _write_manifest(output, manifest | {"parts": parts})
    remove_leftovers(output)
    return {entry["file"]: entry["bytes"] for entry in chain.from_iterable(parts.values())}


def _write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    write_text(output / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _plan_part(
    part: str, pairs: Pairs, rows: np.ndarray, args: ShardArguments, data: DataArguments, read_cell: CellReader | None
) -> list[PlannedShard]:
    size, output = args.rows_per_shard, Path(args.output_dir).resolve()
    if any(isinstance(picture, list) for picture in pairs.pictures):
        raise InputError("Rows have several pictures, and a row of shards has one; train on the table itself.")
    columns = pairs.dataset.select_columns(["guid", "label", "text", "text_key", "image_key"]).with_format(None)
    planned = [
        PlannedRow(
            number=number,
            guid=row["guid"],
            text=None if row["text_key"] is None else row["text"],
            label=None if row["label"] == NO_LABEL_ID else data.labels[row["label"]],
            picture=pairs.pictures[place],
            image_key=row["image_key"],
        )
        for number, (place, row) in enumerate(zip(rows.tolist(), columns.select(rows), strict=True))
    ]
    pieces = [planned[start : start + size] for start in range(0, len(planned), size)]
    shards = []
    for number, piece in enumerate(pieces):
        path = output / shard_name(part, number, len(pieces), args.shard_format)
        shards.append(PlannedShard(path, args.shard_format, read_cell, piece))
    return shards


def _write_missing(plans: Sequence[PlannedShard], sizes: Mapping[str, int], *, num_workers: int) -> None:
    """Write the shards that aren't there, or are damaged, which is said; `sizes` is of `_claim_folder`."""
    missing = []
    for plan in plans:
        damage = find_damage(plan, sizes.get(plan.path.name)) if plan.path.exists() else ""
        if damage:
            logger.warning("%s is damaged and is written again: %s", plan.path, damage)
        if damage is not None:
            missing.append(plan)
    if len(missing) < len(plans):
        logger.info("%d of %d shards are there already.", len(plans) - len(missing), len(plans))
    workers = limit_workers(min(num_workers, len(missing)))
    done = run_tasks(write_shard, missing, workers=workers, doing="writing shards")
    for _ in progress(done, total=len(missing), description="Writing shards", unit="shards", stays=False):
        pass
