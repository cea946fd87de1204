"""Writes shards with the pictures inside: `python -m data_utils.shard --data_dir data/project5 --output_dir shards`."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from data_utils.arguments import DEFAULT_LABELS, DataArguments
from data_utils.command_line import FlagParser
from data_utils.errors import InputError, check_choice, refuse_long_names
from data_utils.files import list_own, remove_leftovers, write_text
from data_utils.mapping import end_with_parent
from data_utils.pairs import NO_LABEL_ID, Pairs, load_pairs, pair_folder
from data_utils.pictures import MAX_PIXELS, PictureSettings
from data_utils.refusals import report_error
from data_utils.screen import show, start_logging
from data_utils.shard_set import MANIFEST, SUFFIXES, VERSION, read_manifest
from data_utils.shard_write import PlannedRow, PlannedShard, describe_shard, find_damage, write_shard
from data_utils.split_file import Split, save_split
from data_utils.splits import split_pairs

logger = logging.getLogger("data_utils.shard")  # __name__ is __main__ where python -m starts it
# Every picture is decoded once to know that it can be; nothing larger than a pixel is kept of it.
_DECODING = PictureSettings(image_size=1, shortest_edge=1, resize_mode="squash", resample=0)


@dataclass
class ShardArguments:
    """Flags of data_utils.shard. Raises `InputError` with what is allowed."""

    data_dir: str = field(metadata={"help": "Folder with the list file and data/{guid}.txt with data/{guid}.jpg."})
    output_dir: str = field(metadata={"help": "Folder for the shards, shards.json, split.json and quarantine.csv."})
    train_file: str = field(default="train.txt", metadata={"help": "The list: a name inside --data_dir, or a path."})
    for_prediction: bool = field(
        default=False, metadata={"help": "Write every row of the list, in its order, as test-*: for --predict."}
    )
    shard_format: str = field(default="parquet", metadata={"help": "parquet or webdataset (tar)."})
    rows_per_shard: int = field(default=1000, metadata={"help": "Rows in each shard but the last of a part."})
    labels: list[str] = field(default_factory=lambda: list(DEFAULT_LABELS), metadata={"help": "Allowed labels."})
    val_ratio: float | None = field(
        default=None, metadata={"help": "Share of the pairs for validation, in [0, 1). Default: 0.1."}
    )
    seed: int | None = field(
        default=None, metadata={"help": "Of the split and of the rows' order in the shards. Default: 42."}
    )
    split_file: str | None = field(default=None, metadata={"help": "A split.json of an earlier run, to use again."})
    on_bad_pair: str | None = field(
        default=None, metadata={"help": "A pair with one usable side: mask, drop or error. Default: mask."}
    )
    max_image_pixels: int = field(
        default=MAX_PIXELS, metadata={"help": "A picture of more pixels, that is no JPEG, is taken as unreadable."}
    )
    allow_data_loss: bool = field(
        default=False, metadata={"help": "Write shards although much of the data is lost, see train.py --help."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Folder for what is found out about the files."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes. Default: all cores."})

    def __post_init__(self) -> None:
        check_choice("--shard_format", self.shard_format, SUFFIXES)
        if self.rows_per_shard < 1:
            raise InputError(f"Got --rows_per_shard {self.rows_per_shard}; it must be 1 or more.")
        if self.for_prediction:
            self._refuse_unused()
        defaults = {"val_ratio": 0.1, "seed": 42, "on_bad_pair": "mask"}
        for name in (name for name in defaults if getattr(self, name) is None):
            setattr(self, name, defaults[name])
        if self.seed < 0:
            raise InputError(f"Got --seed {self.seed}; it must be 0 or more.")
        self.data = DataArguments(
            data_dir=self.data_dir,
            train_file=self.train_file,
            labels=self.labels,
            val_ratio=self.val_ratio,
            split_file=self.split_file,
            on_bad_pair=self.on_bad_pair,
            max_image_pixels=self.max_image_pixels,
            allow_data_loss=self.allow_data_loss,
            cache_dir=self.cache_dir,
            preprocessing_num_workers=self.preprocessing_num_workers,
        )

    def _refuse_unused(self) -> None:
        """Refuse flags that say which rows are left out, in what order, where all of them are written as listed."""
        for name in ("split_file", "val_ratio", "seed", "on_bad_pair", "allow_data_loss"):
            if getattr(self, name) not in (None, False):
                raise InputError(
                    f"Got --{name} {getattr(self, name)} with --for_prediction, which writes every row of the list in "
                    "its order; leave one of the two out."
                )


@refuse_long_names()
def write_shards(args: ShardArguments) -> dict[str, Any]:
    """Write all shards that aren't there whole, then the manifest; a job that was killed goes on where it was.

    Validation is split off by group as in training. Rows of training and validation are in an order drawn from --seed,
    since a shuffle buffer couldn't mix a sorted list; rows for prediction stay in the list's order.

    Returns:
        The manifest.

    Raises:
        InputError: the data can't be used, or the folder holds shards of other data or settings.
    """
    output, folder = Path(args.output_dir), pair_folder(Path(args.data_dir))
    pairs = _load_rows(args, folder)
    split, parts = _part_rows(pairs, args)
    settings = {"format": args.shard_format, "rows_per_shard": args.rows_per_shard, "seed": args.seed}
    manifest = {
        "version": VERSION,
        **settings,
        "labels": args.labels,
        "sha256": _hash_plan(pairs, parts, settings),
        "complete": False,
        "parts": {},
    }
    sizes = _claim_folder(output, manifest)
    pairs.ledger.write_csv(output / "quarantine.csv")
    if pairs.ledger.summary():
        logger.info("%s\nEach is a row of %s.", pairs.ledger.summary(), output / "quarantine.csv")
    if split is not None:
        save_split(split, output / "split.json")
    plans = {part: list(_plan_part(part, pairs, rows, args, folder)) for part, rows in parts.items()}
    _write_all(list(chain.from_iterable(plans.values())), sizes, num_workers=args.data.num_workers())
    manifest |= {
        "complete": True,
        "parts": {part: [describe_shard(plan) for plan in found] for part, found in plans.items() if found},
    }
    _write_manifest(output, manifest)
    return manifest


def _load_rows(args: ShardArguments, folder: Path) -> Pairs:
    data = args.data
    pairs = load_pairs(
        data.list_path(),
        pair_dir=Path(args.data_dir),
        data=data,
        picture=_DECODING,
        text_cleaning="none",
        for_prediction=args.for_prediction,
    )
    if args.for_prediction and not _has_any_file(pairs):
        raise InputError(
            f"Found no text and no picture of the {len(pairs.dataset)} rows of {data.list_path()} in {folder}; the "
            f"first row is read as the guid {pairs.dataset[0]['guid']!r}. Check --data_dir, and that the list holds "
            "lines of guid,tag, parted by commas."
        )
    return pairs


def _has_any_file(pairs: Pairs) -> bool:
    found = pairs.dataset.select_columns(["text_present", "image_present"])[:]
    return any(found["text_present"]) or any(found["image_present"])


def _part_rows(pairs: Pairs, args: ShardArguments) -> tuple[Split | None, dict[str, np.ndarray]]:
    """The split, and the rows of each part in the order in which they are written."""
    if args.for_prediction:
        return None, {"test": np.arange(len(pairs.dataset))}
    split, train, val, test = split_pairs(pairs, args.data, seed=args.seed)
    mix = np.random.default_rng(args.seed)
    parts = {"train": train, "validation": val} | ({"test": test} if len(test) else {})
    return split, {name: mix.permutation(rows) for name, rows in parts.items()}


def _hash_plan(pairs: Pairs, parts: dict[str, np.ndarray], settings: dict[str, Any]) -> str:
    """Hash of all that the shards' bytes depend on."""
    order = {part: hashlib.sha256(rows.tobytes()).hexdigest() for part, rows in parts.items()}
    return hashlib.sha256(json.dumps([VERSION, settings, pairs.fingerprint, order]).encode()).hexdigest()


def _claim_folder(output: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """Begin, or go on with the same shards; others are never mixed with them.

    Returns:
        Bytes of each shard by its file's name, as an earlier job that finished noted them.

    Raises:
        InputError: the folder holds something else.
    """
    earlier = read_manifest(output)
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


def _plan_part(part: str, pairs: Pairs, rows: np.ndarray, args: ShardArguments, folder: Path) -> Iterator[PlannedShard]:
    size, output = args.rows_per_shard, Path(args.output_dir).resolve()
    count = -(-len(rows) // size)
    columns = ["guid", "label", "text", "text_key", "image_key"]
    for number in range(count):
        start = number * size
        chosen = pairs.dataset.select_columns(columns).with_format(None).select(rows[start : start + size])
        planned = tuple(
            PlannedRow(
                number=start + place,
                guid=row["guid"],
                text=None if row["text_key"] is None else row["text"],
                label=None if row["label"] == NO_LABEL_ID else args.labels[row["label"]],
                image_key=row["image_key"],
            )
            for place, row in enumerate(chosen)
        )
        name = f"{part}-{number:05d}-of-{count:05d}{SUFFIXES[args.shard_format]}"
        yield PlannedShard(output / name, args.shard_format, folder, planned)


def _is_written(plan: PlannedShard, size: int | None) -> bool:
    """Whether a shard is there already; of a damaged one it is said that it isn't."""
    if not plan.path.exists():
        return False
    damage = find_damage(plan, size)
    if damage is not None:
        logger.warning("%s is damaged (%s) and is written again.", plan.path, damage)
    return damage is None


def _write_all(plans: Sequence[PlannedShard], sizes: Mapping[str, int], *, num_workers: int) -> None:
    """Write the shards that aren't there; `sizes` is of `_claim_folder`."""
    missing = [plan for plan in plans if not _is_written(plan, sizes.get(plan.path.name))]
    if len(missing) < len(plans):
        logger.info("%d of %d shards are there already.", len(plans) - len(missing), len(plans))
    progress = tqdm(total=len(missing), desc="Writing shards", unit="shard", leave=False)
    workers = min(num_workers, len(missing))
    if workers <= 1:
        for plan in missing:
            write_shard(plan)
            progress.update()
        return
    # Not forked: threads of this process may hold locks, which a copy of it would wait for.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        try:
            for done in as_completed([pool.submit(write_shard, plan) for plan in missing]):
                done.result()
                progress.update()
        except BrokenProcessPool as error:
            raise InputError(
                "A process that wrote shards was killed, most likely because memory ran out; use fewer with "
                f"--preprocessing_num_workers (now {workers}) and start again: what is written stays."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 after a mistake of the user)."""
    start_logging()
    logging.getLogger("data_utils").setLevel(logging.INFO)
    parser = FlagParser(ShardArguments, description="Write shards with the pictures inside, for --streaming.")
    try:
        args = ShardArguments(**parser.parse(argv))
        manifest = write_shards(args)
    except Exception as error:
        return report_error(error)
    for part, shards in manifest["parts"].items():
        size = sum(shard["bytes"] for shard in shards)
        show(f"{part}: {sum(shard['rows'] for shard in shards)} rows in {len(shards)} shards, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
