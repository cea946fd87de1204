"""The split of loaded pairs: drawn or read, its rows found, and none of its groups in two parts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_utils.prepare.pairs import Pairs
from data_utils.sources.arguments import DataArguments
from data_utils.splits.draw import find_strata, hold_out, make_split, with_copies
from data_utils.splits.groups import Numbers, check_largest_group, find_copies, find_groups, find_members
from data_utils.splits.split_file import PART_TITLES, Split, load_split
from modeling.errors import InputError

logger = logging.getLogger(__name__)


def split_pairs(pairs: Pairs, data: DataArguments, *, seed: int) -> tuple[Split, np.ndarray, np.ndarray, np.ndarray]:
    """The split that the arguments ask for: read from `--split_file` or declared by the data, and checked; else drawn.

    A file that names no copy was written for the list without them: the copies of its training rows are added.

    Returns:
        The split, and row numbers for training, for validation and for the test.
    """
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    guids, groups = columns["guid"], find_groups(pairs.dataset, data.group_by)
    if data.split_file is None and pairs.declared:
        split = declared_split(pairs, groups, data, seed=seed)
        check_no_leak(split, guids, groups, allow=data.allow_leaky_split)
    elif data.split_file is None:
        if data.val_ratio > 0:
            check_largest_group(pairs.dataset, groups)
        split = make_split(guids, find_strata(columns["label"]), groups, val_ratio=data.val_ratio, seed=seed)
    else:
        split = load_split(Path(data.split_file), known_guids=pairs.known_guids)
        check_no_leak(split, guids, groups, allow=data.allow_leaky_split)
        if not (find_copies(guids) & find_members(split.guids, guids)).any():
            split = with_copies(split, guids, groups)
    return split, *split_indices(split, guids)


def declared_split(pairs: Pairs, groups: Numbers, data: DataArguments, *, seed: int) -> Split:
    """The parts that the data declare; validation is drawn from the training part where they declare a test alone.

    `InputError` where a declared part has no row left.
    """
    if "val" in pairs.declared and data.val_ratio not in (0, DataArguments.val_ratio):
        raise InputError(
            f"Got --val_ratio {data.val_ratio}, and data that declare the rows for validation; leave it out, or add "
            "--val_split none where they are a split."
        )
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    found: dict[str, list[str]] = {part: [] for part in pairs.declared}
    for guid, part in zip(columns["guid"], pairs.parts, strict=True):
        found[part or "train"].append(guid)
    parts = {part: tuple(sorted(guids)) for part, guids in found.items()}
    if empty := [PART_TITLES[part] for part, guids in parts.items() if not guids]:
        raise InputError(f"No row of the declared {empty[0]} part can be used (see quarantine.csv); mend its rows.")
    split = Split(parts["train"], parts.get("val", ()), seed=seed, val_ratio=None, test=parts.get("test", ()))
    if "val" in parts or data.val_ratio == 0:
        return split
    fold = replace(split, val=split.test)
    return hold_out(fold, columns["guid"], find_strata(columns["label"]), groups, val_ratio=data.val_ratio, seed=seed)


def split_indices(split: Split, guids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of training, validation and test (int64 arrays) by the rows' guids; tells what is left out.

    `InputError` where a part that names guids has no row left.
    """
    rows = {part: np.flatnonzero(find_members(members, guids)) for part, members in split.parts.items()}
    for part, members in split.parts.items():
        if members and not len(rows[part]):
            title = PART_TITLES[part]
            raise InputError(
                f"none of the {len(members)} guids of the split's {title} part is a usable row of the list."
            )
    used, copies = find_members(split.guids, guids), find_copies(guids)
    for level, count, what in (
        (logging.WARNING, len(split.guids) - used.sum(), "guids of the split were left out (see quarantine.csv)"),
        (logging.INFO, (copies & used).sum(), "training rows are copies by their names (12_t1), and judged nowhere"),
        (logging.INFO, (copies & ~used).sum(), "copies are left out, as what they were made from is not trained on"),
        (logging.WARNING, (~copies & ~used).sum(), "rows are in no part of the split and stay unused"),
    ):
        if count:
            logger.log(level, "%d %s", count, what)
    return rows["train"], rows["val"], rows["test"]


def check_no_leak(split: Split, guids: Sequence[str], groups: Numbers, *, allow: bool = False) -> None:
    """`InputError` for a split in which a group stands in two parts, or a copy in another part than training.

    It names one guid or pair of guids, how many there are of their kind, and the flag (`--allow_leaky_split`) by which
    it becomes a warning. `guids` and `groups` are those of the N rows.
    """
    part_of = {guid: part for part, members in split.parts.items() for guid in members}
    firsts: dict[int, dict[str, str]] = defaultdict(dict)  # group -> part -> its first guid
    for guid, group in zip(guids, groups, strict=True):
        if guid in part_of:
            firsts[int(group)].setdefault(part_of[guid], guid)
    crossing = [parts for parts in firsts.values() if len(parts) > 1]
    copies = [guids[row] for row in np.flatnonzero(find_copies(guids)).tolist()]
    held_out = [guid for guid in copies if part_of.get(guid, "train") != "train"]
    if crossing:
        first, second, *_ = ((crossing[0][part], title) for part, title in PART_TITLES.items() if part in crossing[0])
        fault = (
            f"{len(crossing)} groups of equal texts, equal pictures or copies stand in two parts of the split, for "
            f"example '{first[0]}' ({first[1]}) and '{second[0]}' ({second[1]})"
        )
    elif held_out:
        fault = (
            f"{len(held_out)} augmented copies are held out by the split beside what they were made from, for example "
            f"'{held_out[0]}' ({PART_TITLES[part_of[held_out[0]]]}), and would be counted as pairs of their own"
        )
    else:
        return
    if not allow:
        raise InputError(
            f"{fault}; figures on it would be too good. Make a new split, or accept it with --allow_leaky_split."
        )
    logger.warning("%s; --allow_leaky_split is set, so the figures may be too good", fault)
