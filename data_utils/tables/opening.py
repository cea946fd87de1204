"""What the flags of the data name, opened; and the labels that are found there where no flag names them."""

from __future__ import annotations

import csv
import difflib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_utils.console.screen import printable
from data_utils.prepare.pair_files import PairList, PairSource
from data_utils.sources.arguments import DEFAULT_LABELS, LONGEST_LABEL, DataArguments, is_odd_label
from data_utils.sources.encodings import decode_text
from data_utils.sources.label_forms import BETWEEN
from data_utils.sources.records import is_valid_guid
from data_utils.tables.files import SUFFIXES
from data_utils.tables.reading import read_asked, read_parts
from data_utils.tables.source import TableSource
from modeling.errors import InputError

logger = logging.getLogger(__name__)
_MOST_LABELS = 1000
_LONGEST_HEADER = 100_000  # bytes
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_SHOWN, _SHOWN_LABELS = 30, 20


def open_source(data: DataArguments) -> PairSource:
    """The pairs that the flags name; `InputError` where they aren't there."""
    if data.data is None:
        return PairList(data.list_path(), Path(data.data_dir))
    return TableSource(read_parts(data), data)


def open_asked(flag: str, paths: Sequence[str], data: DataArguments) -> TableSource:
    """The rows of a table that a prediction is asked for, of which no label is needed; `flag` names it."""
    return TableSource({"": read_asked(flag, paths, data)}, data, labelled=False)


def names_table(name: str, data: DataArguments) -> bool:
    """Whether what a prediction is asked for is a table, and no list of guid,tag, whose files may end in .csv too.

    A run that was trained on a list (`data`) takes a .csv of at most two columns for one.
    """
    if not name.lower().endswith((*SUFFIXES, ".gz")):
        return os.path.isdir(name) or (data.data is not None and not os.path.isfile(name))
    if data.data is not None or not name.lower().endswith(".csv") or not os.path.isfile(name):
        return True
    with open(name, "rb") as file:
        lines = decode_text(file.readline(_LONGEST_HEADER))[0].splitlines()  # also of old Macs
    return len(next(csv.reader(lines), [])) > 2


def settle_labels(data: DataArguments) -> DataArguments:
    """The arguments with the labels of the training data, where no flag names any: as declared, else sorted.

    A list (guid,tag) most of whose rows are negative, neutral or positive is of these three: its others are mistakes.

    Raises:
        InputError: the data can't be read, or what they have there can't be classes.
    """
    if data.labels is not None:
        return data
    source = open_source(data)
    if isinstance(source, TableSource):
        tags = source.tags_of(next(iter(source.tables)))
    else:
        rows = source.rows([])
        places = (place for place, guid in enumerate(rows.guids) if is_valid_guid(guid))
        tags = [rows.labels[place] or "" for place in places if place not in rows.malformed]
    found = Counter[str]()
    for tag, count in Counter(tags).items():
        for name in tag.split(BETWEEN) if data.task == "multi_label" else [tag]:
            if name.strip().casefold() not in ("", "null"):
                found[unicodedata.normalize("NFC", name.strip())] += count
    declared = source.declared_labels if isinstance(source, TableSource) else None
    are_ours = not found or 2 * sum(found[label] for label in DEFAULT_LABELS) > found.total()
    if isinstance(source, PairList) and are_ours:  # of a list without labels its rows are told
        return replace(data, labels=list(DEFAULT_LABELS))
    labels = declared or _sort(found)
    _check_labels(source.name, found, labels, len(tags))
    shown = ", ".join(f"{printable(label, _SHOWN)} ({found[label]})" for label in labels[:_SHOWN_LABELS])
    logger.info("Labels%s: %s.", " (declared)" if declared else " found, with their rows", shown)
    return replace(data, labels=labels)


def _sort(found: Counter[str]) -> list[str]:
    """By their values where all are whole numbers, else as words."""
    return sorted(found, key=int if all(map(_NUMBER.fullmatch, found)) else None)


def _check_labels(name: str, found: Counter[str], labels: Sequence[str], num_rows: int) -> None:
    """`InputError` for labels that can't be classes, or are one class in two spellings."""
    if len(labels) < 2:
        got = f"the label {printable(repr(labels[0]), _SHOWN)} alone" if labels else "no label"
        raise InputError(
            f"The {num_rows} rows of {name} have {got}; to learn anything takes at least two. Check the column of the "
            "labels (--label_column), or keep the rows for --predict."
        )
    spellings: dict[str, str] = {}
    for label in labels:
        other = spellings.setdefault(" ".join(label.casefold().split()), label)
        if other != label:
            raise InputError(
                f"{name} has the labels {printable(repr(other), _SHOWN)} ({found[other]} rows) and "
                f"{printable(repr(label), _SHOWN)} ({found[label]}), which differ in capitals or blanks alone: write "
                "them alike, or name the classes with --labels."
            )
    if len(labels) > min(_MOST_LABELS, max(2, num_rows // 2)):
        some = ", ".join(printable(repr(label), _SHOWN) for label in labels[:3])
        raise InputError(
            f"{name} has {len(labels)} labels in {num_rows} rows, like {some}: that is no column of classes. Name "
            "another with --label_column, take --task regression for numbers, or name the classes with --labels."
        )
    if odd := next(filter(is_odd_label, labels), None):
        raise InputError(
            f"{name} has the label {printable(repr(odd), _SHOWN)} ({found[odd]} rows); a class has no comma or NUL, no "
            f"blanks at its ends, at most {LONGEST_LABEL:,} letters, and isn't 'null': write it so."
        )
    for label in labels:
        if 0 < found[label] <= num_rows / 100 and (
            near := difflib.get_close_matches(label, [each for each in labels if found[each] > 10 * found[label]], 1)
        ):
            logger.warning(
                "The label %s (%d rows) may be a misspelling of %s (%d): mend it, or name the classes with --labels.",
                *(printable(repr(label), _SHOWN), found[label], printable(repr(near[0]), _SHOWN), found[near[0]]),
            )
