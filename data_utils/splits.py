"""Training and validation parts: stratified, and by whole groups, so that no twin of a row is in the other part."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from data_utils.arguments import DataArguments
from data_utils.copies import choose_copies, find_copies, find_members, root_guid
from data_utils.errors import InputError
from data_utils.files import write_text
from data_utils.pairs import Pairs

logger = logging.getLogger(__name__)

_TITLES = {"train": "training", "val": "validation", "test": "test"}
_PARTS = tuple(_TITLES)


@dataclass(frozen=True)
class Split:
    """The guids of the parts, sorted, and how they were drawn (None where a file written by hand doesn't say).

    What is trained is chosen (best epoch, early stopping) by `val`; `test`, which may be empty, chooses nothing and is
    judged once, at the end.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    seed: int | None
    val_ratio: float | None
    test: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the content; stored in the file, so that a changed file is noticed."""
        content = [sorted(self.train), sorted(self.val), self.seed, self.val_ratio]
        if self.test:
            content.append(sorted(self.test))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def with_copies(split: Split, guids: Sequence[str], groups: Sequence[int]) -> Split:
    """Add the copies to a split of the rows they were made from.

    A copy is trained on if its group is. Copies of held-out rows are in no part: figures must be of real pairs, and
    training on the copies would give those away.

    Args:
        split: parts without copies.
        guids: of all N rows.
        groups: their group numbers (`group_ids`).
    """
    added = choose_copies(guids, groups, train=split.train, held_out=split.val + split.test)
    return replace(split, train=tuple(sorted({*split.train, *added})))


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

    The same rows give the same split in any order. Copies (`find_copies`) have no say in it: they join the training
    rows, or, where their group is held out, no part.

    Args:
        guids: N guids, each once.
        labels: N class numbers.
        groups: N group numbers (`group_ids`).
        val_ratio: share of validation in [0, 1); 0 leaves it empty.
        seed: of the draw.

    Raises:
        InputError: a part would be empty.
    """
    rows = np.flatnonzero(~find_copies(guids))
    found = _collect_groups(*([column[row] for row in rows] for column in (guids, labels, groups)))
    chosen = _choose_validation(found, val_ratio, seed) if val_ratio > 0 else set()
    val = tuple(sorted(guid for number in chosen for guid in found[number].guids))
    train = tuple(sorted(guid for number, group in enumerate(found) if number not in chosen for guid in group.guids))
    if not train or (val_ratio > 0 and not val):
        raise InputError(
            f"{len(rows)} pairs in {len(found)} groups of equal texts, equal pictures and copies (guids that end in "
            f"_t1 or _i1) cannot be split with --val_ratio {val_ratio}: the "
            f"{'validation' if train else 'training'} part would be empty. Give more pairs, another --val_ratio, or 0 "
            "to train on all."
        )
    return with_copies(Split(train=train, val=val, seed=seed, val_ratio=val_ratio), guids, groups)


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
        **({"test": split.test} if split.test else {}),
    }
    write_text(Path(path), json.dumps(content, indent=1) + "\n")


def _parse_split(path: Path, content: object) -> Split:
    missing = [part for part in ("train", "val") if not isinstance(content, dict) or part not in content]
    if missing:
        raise InputError(f"the split file {path} lacks {', '.join(missing)}; give a split.json of an earlier run.")
    parts = {part: content.get(part, []) for part in _PARTS}
    for part, guids in parts.items():
        if not isinstance(guids, list) or not all(isinstance(guid, str) for guid in guids):
            raise InputError(f"{part} in the split file {path} is not a list of guids in quotes; give a split.json.")
    split = Split(
        **{part: tuple(guids) for part, guids in parts.items()},
        seed=content.get("seed"),
        val_ratio=content.get("val_ratio"),
    )
    repeated = sorted(guid for guid, count in Counter(_all_guids(split)).items() if count > 1)
    if repeated:
        crossing = [guid for guid in repeated if sum(guid in part for part in parts.values()) > 1]
        where = f"{len(crossing)} guids in two parts" if crossing else f"{len(repeated)} guids more than once"
        raise InputError(f"the split file {path} has {where}, for example '{(crossing or repeated)[0]}'; mend it.")
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
        unknown = [guid for guid in _all_guids(split) if guid not in known_guids]
        if unknown:
            raise InputError(
                f"{len(unknown)} guids of the split file {path} are not in the list, for example '{unknown[0]}'; "
                "it belongs to other data: check --split_file, --data_dir and --train_file."
            )
    return split


def _all_guids(split: Split) -> tuple[str, ...]:
    return split.train + split.val + split.test


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
    for part, title in _TITLES.items():
        members = set(getattr(split, part))
        rows[part] = np.array([row for row, guid in enumerate(guids) if guid in members], dtype=np.int64)
        if members and not len(rows[part]):
            raise InputError(
                f"none of the {len(members)} guids of the split's {title} part is a usable row of the list."
            )
    num_found = sum(len(part) for part in rows.values())
    gone = len(_all_guids(split)) - num_found
    if gone:
        logger.warning("%d guids of the split were left out of the data (see quarantine.csv)", gone)
    unused = ~find_members(_all_guids(split), guids)
    copies = unused & find_copies(guids)
    if copies.any():
        logger.info("%d copies are left out, since what they were made from is not trained on", copies.sum())
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
    part_of = {guid: part for part in _PARTS for guid in getattr(split, part)}
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
    (one, first), (other, second) = sorted(crossing[0].items(), key=lambda item: _PARTS.index(item[0]))[:2]
    return (
        f"{len(crossing)} groups of equal texts, equal pictures or copies stand in two parts of the split, for "
        f"example '{first}' ({_TITLES[one]}) and '{second}' ({_TITLES[other]})"
    )


def _describe_copies(copies: Sequence[str], part_of: dict[str, str]) -> str:
    return (
        f"{len(copies)} augmented copies are held out by the split beside what they were made from, for example "
        f"'{copies[0]}' ({_TITLES[part_of[copies[0]]]}), and would be counted as pairs of their own"
    )


def split_pairs(pairs: Pairs, data: DataArguments, *, seed: int) -> tuple[Split, np.ndarray, np.ndarray, np.ndarray]:
    """The split that the arguments ask for: read from `--split_file` and checked, else drawn.

    A file that names no copy was written for the list without them: the copies of its training rows are added.

    Returns:
        The split, and row numbers for training, for validation and for the test.

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
        if not find_copies(columns["guid"])[find_members(_all_guids(split), columns["guid"])].any():
            split = with_copies(split, columns["guid"], groups)
    return split, *split_indices(split, columns["guid"])
