"""The split of loaded pairs: drawn or read, its rows found, and none of its groups in two parts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from data_utils.prepare.pairs import Pairs
from data_utils.sources.arguments import DataArguments
from data_utils.splits.copies import find_copies, find_members, root_guid
from data_utils.splits.draw import make_split, with_copies
from data_utils.splits.group_sizes import check_largest_group
from data_utils.splits.split_file import PART_TITLES, Split, load_split
from modeling.errors import InputError

logger = logging.getLogger(__name__)


def split_pairs(pairs: Pairs, data: DataArguments, *, seed: int) -> tuple[Split, np.ndarray, np.ndarray, np.ndarray]:
    """The split that the arguments ask for: read from `--split_file` and checked, else drawn.

    A file that names no copy was written for the list without them: the copies of its training rows are added.

    Returns:
        The split, and row numbers for training, for validation and for the test.

    Raises:
        InputError: see `load_split`, `check_no_leak`, `check_largest_group`, `make_split` and `split_indices`.
    """
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    groups = group_ids(pairs.dataset)
    if data.split_file is None:
        if data.val_ratio > 0:
            check_largest_group(pairs.dataset, groups)
        split = make_split(columns["guid"], columns["label"], groups, val_ratio=data.val_ratio, seed=seed)
    else:
        split = load_split(Path(data.split_file), known_guids=pairs.known_guids)
        check_no_leak(split, columns["guid"], groups, allow=data.allow_leaky_split)
        if not find_copies(columns["guid"])[find_members(split.guids, columns["guid"])].any():
            split = with_copies(split, columns["guid"], groups)
    return split, *split_indices(split, columns["guid"])


def group_ids(dataset: Dataset) -> np.ndarray:
    """Number the groups of rows that must not be parted.

    Rows are in one group if they have an equal text (`text_key`), equal picture bytes (`image_key`) or are copies of
    one pair (`root_guid`), directly or through other rows.

    Args:
        dataset: N rows of `load_pairs`.

    Returns:
        int64 array (N,): equal numbers for rows of one group.
    """
    columns = dataset.select_columns(["guid", "text_key", "image_key"]).with_format(None)[:]
    parent = list(range(len(dataset)))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for keys in (columns["text_key"], columns["image_key"], [root_guid(guid) for guid in columns["guid"]]):
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                parent[find(row)] = find(first.setdefault(key, row))
    return np.array([find(row) for row in range(len(dataset))], dtype=np.int64)


def split_indices(split: Split, guids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of the parts, ascending; says how many guids have no row, and how many rows are in no part and why.

    Args:
        split: the parts.
        guids: guids of the N kept rows.

    Returns:
        Three int64 arrays: rows for training, rows for validation, rows for the test.

    Raises:
        InputError: a part that names guids has no row left.
    """
    rows = {}
    for part, title in PART_TITLES.items():
        members = set(getattr(split, part))
        rows[part] = np.array([row for row, guid in enumerate(guids) if guid in members], dtype=np.int64)
        if members and not len(rows[part]):
            raise InputError(
                f"none of the {len(members)} guids of the split's {title} part is a usable row of the list."
            )
    num_found = sum(len(part) for part in rows.values())
    gone = len(split.guids) - num_found
    if gone:
        logger.warning("%d guids of the split were left out of the data (see quarantine.csv)", gone)
    unused, copies = ~find_members(split.guids, guids), find_copies(guids)
    if (copies & ~unused).any():
        logger.info(
            "%d training rows are copies of others, by their names (like 12_t1): copies are judged nowhere",
            (copies & ~unused).sum(),
        )
    if (copies & unused).any():
        logger.info("%d copies are left out, since what they were made from is not trained on", (copies & unused).sum())
    if (unused & ~copies).any():
        logger.warning("%d rows are in no part of the split and stay unused", (unused & ~copies).sum())
    return rows["train"], rows["val"], rows["test"]


def check_no_leak(split: Split, guids: Sequence[str], groups: Sequence[int], *, allow: bool = False) -> None:
    """Refuse a split in which a group stands in two parts, or a copy in another part than training.

    Args:
        split: the parts.
        guids: guids of the N rows.
        groups: their group numbers.
        allow: warn instead (`--allow_leaky_split`).

    Raises:
        InputError: names one guid or pair of guids, how many there are of their kind, and the flag.
    """
    part_of = {guid: part for part in PART_TITLES for guid in getattr(split, part)}
    members: dict[int, dict[str, str]] = defaultdict(dict)  # group -> part -> its first guid
    for guid, group in zip(guids, groups, strict=True):
        if guid in part_of:
            members[int(group)].setdefault(part_of[guid], guid)
    crossing = [parts for parts in members.values() if len(parts) > 1]
    copies = [guids[row] for row in np.flatnonzero(find_copies(guids)) if part_of.get(guids[row], "train") != "train"]
    if not crossing and not copies:
        return
    fault = _describe_crossing(crossing) if crossing else _describe_copies(copies, part_of)
    if not allow:
        raise InputError(
            f"{fault}; figures on it would be too good. Make a new split, or accept it with --allow_leaky_split."
        )
    logger.warning("%s; --allow_leaky_split is set, so the figures may be too good", fault)


def _describe_crossing(crossing: Sequence[dict[str, str]]) -> str:
    (one, first), (other, second) = sorted(crossing[0].items(), key=lambda item: list(PART_TITLES).index(item[0]))[:2]
    return (
        f"{len(crossing)} groups of equal texts, equal pictures or copies stand in two parts of the split, for "
        f"example '{first}' ({PART_TITLES[one]}) and '{second}' ({PART_TITLES[other]})"
    )


def _describe_copies(copies: Sequence[str], part_of: dict[str, str]) -> str:
    return (
        f"{len(copies)} augmented copies are held out by the split beside what they were made from, for example "
        f"'{copies[0]}' ({PART_TITLES[part_of[copies[0]]]}), and would be counted as pairs of their own"
    )
