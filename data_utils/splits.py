"""Training and validation parts: stratified, and by whole groups, so that no twin of a row is in the other part."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from data_utils.arguments import DataArguments
from data_utils.errors import InputError
from data_utils.files import write_text
from data_utils.pairs import Pairs

logger = logging.getLogger(__name__)

_COPY = re.compile(r"^(.+)_[ti]\d+$")
_PARTS = ("train", "val")


@dataclass(frozen=True)
class Split:
    """The guids of both parts, sorted, and how they were drawn (None where a file written by hand doesn't say)."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    seed: int | None
    val_ratio: float | None

    @property
    def sha256(self) -> str:
        """Hash of the content; stored in the file, so that a changed file is noticed."""
        content = [sorted(self.train), sorted(self.val), self.seed, self.val_ratio]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def root_guid(guid: str) -> str:
    """The guid an augmented copy was made from: `12` for `12_t1`, `12_i1` and `12_t1_i2`, `12` for itself."""
    while match := _COPY.match(guid):
        guid = match.group(1)
    return guid


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


@dataclass(frozen=True)
class _Group:
    guids: tuple[str, ...]
    classes: Counter[int]


def _collect_groups(guids: Sequence[str], labels: Sequence[int], groups: Sequence[int]) -> list[_Group]:
    """Groups with their class counts, in the order of their smallest guid: the rows' own order has no say."""
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for guid, label, group in sorted(zip(guids, labels, groups, strict=True)):
        members[group].append((guid, label))
    return [
        _Group(tuple(guid for guid, _ in rows), Counter(int(label) for _, label in rows)) for rows in members.values()
    ]


def _choose_validation(groups: list[_Group], val_ratio: float, seed: int) -> set[int]:
    """Numbers of the groups that go to validation: each class is filled up to its share, never beyond it.

    A class whose groups are all larger than its share still gets its smallest group, if it keeps another to train on.
    """
    rows_of, groups_of = Counter[int](), Counter[int]()
    for group in groups:
        rows_of.update(group.classes)
        groups_of.update(group.classes.keys())
    quota = {label: max(round(val_ratio * count), 1 if groups_of[label] > 1 else 0) for label, count in rows_of.items()}
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: set[int] = set()
    rows_taken, groups_taken = Counter[int](), Counter[int]()

    def keeps_training(group: _Group) -> bool:
        return all(groups_taken[label] + 1 < groups_of[label] for label in group.classes)

    def take(number: int) -> None:
        chosen.add(number)
        rows_taken.update(groups[number].classes)
        groups_taken.update(groups[number].classes.keys())

    for number in order:
        classes = groups[number].classes
        fits = all(rows_taken[label] + count <= quota[label] for label, count in classes.items())
        if fits and keeps_training(groups[number]):
            take(number)
    for label in sorted(quota):
        if rows_taken[label] == 0:
            rest = [n for n in order if label in groups[n].classes and keeps_training(groups[n])]
            if rest:
                take(min(rest, key=lambda n: len(groups[n].guids)))
    return chosen


def make_split(
    guids: Sequence[str], labels: Sequence[int], groups: Sequence[int], *, val_ratio: float, seed: int
) -> Split:
    """Draw a validation part, stratified by class and by whole groups.

    The same rows give the same split in any order.

    Args:
        guids: N guids, each once.
        labels: N class numbers.
        groups: N group numbers (`group_ids`).
        val_ratio: share of validation in [0, 1); 0 leaves it empty.
        seed: of the draw.

    Raises:
        InputError: a part would be empty.
    """
    found = _collect_groups(guids, labels, groups)
    chosen = _choose_validation(found, val_ratio, seed) if val_ratio > 0 else set()
    val = tuple(sorted(guid for number in chosen for guid in found[number].guids))
    train = tuple(sorted(guid for number, group in enumerate(found) if number not in chosen for guid in group.guids))
    if not train or (val_ratio > 0 and not val):
        raise InputError(
            f"{len(guids)} pairs in {len(found)} groups of equal texts, equal pictures and copies (guids that end in "
            f"_t1 or _i1) cannot be split with --val_ratio {val_ratio}: the "
            f"{'validation' if train else 'training'} part would be empty. Give more pairs, another --val_ratio, or 0 "
            "to train on all."
        )
    return Split(train=train, val=val, seed=seed, val_ratio=val_ratio)


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON, with its hash.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "seed": split.seed,
        "val_ratio": split.val_ratio,
        "sha256": split.sha256,
        "train": split.train,
        "val": split.val,
    }
    write_text(Path(path), json.dumps(content, indent=1) + "\n")


def _parse_split(path: Path, content: object) -> Split:
    missing = [part for part in _PARTS if not isinstance(content, dict) or part not in content]
    if missing:
        raise InputError(f"the split file {path} lacks {', '.join(missing)}; give a split.json of an earlier run.")
    for part in _PARTS:
        if not isinstance(content[part], list) or not all(isinstance(guid, str) for guid in content[part]):
            raise InputError(f"{part} in the split file {path} is not a list of guids in quotes; give a split.json.")
    split = Split(tuple(content["train"]), tuple(content["val"]), content.get("seed"), content.get("val_ratio"))
    repeated = [guid for guid, count in Counter(split.train + split.val).items() if count > 1]
    if repeated:
        both = sorted(set(split.train) & set(split.val))
        where = f"{len(both)} guids in both parts" if both else f"{len(repeated)} guids more than once"
        raise InputError(f"the split file {path} has {where}, for example '{(both or repeated)[0]}'; mend it.")
    if content.get("sha256", split.sha256) != split.sha256:
        logger.warning("the split file %s was changed after it was written: it is another split than its run's", path)
    return split


def load_split(path: Path, *, known_guids: Collection[str] | None = None) -> Split:
    """Read a split of an earlier run.

    Args:
        path: a split.json.
        known_guids: every guid of the list (`Pairs.known_guids`), also of rows that were left out.

    Raises:
        InputError: not readable, not JSON, a part missing, a guid in both parts, or a guid that is not in the list.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the split file {path} cannot be read ({error.strerror or error}); check --split_file."
        ) from error
    except ValueError as error:
        raise InputError(
            f"the split file {path} is not JSON ({error}); give a split.json of an earlier run."
        ) from error
    split = _parse_split(Path(path), content)
    if known_guids is not None:
        unknown = [guid for guid in split.train + split.val if guid not in known_guids]
        if unknown:
            raise InputError(
                f"{len(unknown)} guids of the split file {path} are not in the list, for example '{unknown[0]}'; "
                "it belongs to other data: check --split_file, --data_dir and --train_file."
            )
    return split


def split_indices(split: Split, guids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of both parts, ascending; says how many guids have no row, and how many rows are in neither part.

    Args:
        split: the parts.
        guids: guids of the N kept rows.

    Returns:
        Two int64 arrays: rows for training, rows for validation.

    Raises:
        InputError: a part that names guids has no row left.
    """
    rows = []
    for name, part in (("training", set(split.train)), ("validation", set(split.val))):
        rows.append(np.array([row for row, guid in enumerate(guids) if guid in part], dtype=np.int64))
        if part and not len(rows[-1]):
            raise InputError(f"none of the {len(part)} guids of the split's {name} part is a usable row of the list.")
    gone = len(split.train) + len(split.val) - len(rows[0]) - len(rows[1])
    if gone:
        logger.warning("%d guids of the split were left out of the data (see quarantine.csv)", gone)
    unused = len(guids) - len(rows[0]) - len(rows[1])
    if unused:
        logger.warning("%d rows are in neither part of the split and stay unused", unused)
    return rows[0], rows[1]


def check_no_leak(split: Split, guids: Sequence[str], groups: Sequence[int], *, allow: bool = False) -> None:
    """Refuse a split in which a group stands in both parts.

    Args:
        split: the parts.
        guids: guids of the N rows.
        groups: their group numbers.
        allow: warn instead (`--allow_leaky_split`).

    Raises:
        InputError: a group crosses; names one pair of guids, the number of groups and the flag.
    """
    train, val = set(split.train), set(split.val)
    members: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for guid, group in zip(guids, groups, strict=True):
        if guid in train:
            members[int(group)][0].append(guid)
        elif guid in val:
            members[int(group)][1].append(guid)
    crossing = [parts for parts in members.values() if all(parts)]
    if not crossing:
        return
    fault = (
        f"{len(crossing)} groups of equal texts, equal pictures or copies stand in both parts of the split, for "
        f"example '{crossing[0][0][0]}' (training) and '{crossing[0][1][0]}' (validation)"
    )
    if not allow:
        raise InputError(
            f"{fault}; figures on it would be too good. Make a new split, or accept it with --allow_leaky_split."
        )
    logger.warning("%s; --allow_leaky_split is set, so the figures may be too good", fault)


def split_pairs(pairs: Pairs, data: DataArguments, *, seed: int) -> tuple[Split, np.ndarray, np.ndarray]:
    """The split that the arguments ask for: read from `--split_file` and checked, else drawn.

    Returns:
        The split, row numbers for training, row numbers for validation.

    Raises:
        InputError: see `load_split`, `check_no_leak`, `make_split` and `split_indices`.
    """
    columns = pairs.dataset.select_columns(["guid", "label"]).with_format(None)[:]
    groups = group_ids(pairs.dataset)
    if data.split_file is None:
        split = make_split(columns["guid"], columns["label"], groups, val_ratio=data.val_ratio, seed=seed)
    else:
        split = load_split(Path(data.split_file), known_guids=pairs.known_guids)
        check_no_leak(split, columns["guid"], groups, allow=data.allow_leaky_split)
    train, val = split_indices(split, columns["guid"])
    return split, train, val
