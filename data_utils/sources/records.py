"""The rows of a source to records; those that cannot be used go to the quarantine.

A source gives `Row`s, as `read_list` those of a list file (`guid,tag` per line); `judge_rows` judges them all alike.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data_utils.console.screen import printable
from data_utils.sources.encodings import decode_text
from data_utils.sources.file_kinds import name_kind
from data_utils.sources.label_forms import BETWEEN, UNLABELLED, VALUE, is_allowed, split_label
from data_utils.sources.list_format import EXPECTED, refuse_other_formats
from data_utils.sources.quarantine import Action, Quarantine, Reason
from data_utils.sources.row_losses import describe_labels
from data_utils.system.bounded import MEBIBYTE, read_bounded
from modeling.errors import InputError

MAX_LIST = 256 * MEBIBYTE  # some ten million rows; more are streamed from shards

_HEADER_GUID = ("guid", "id")
_HEADER_TAG = ("tag", "label", "sentiment")
_LINE_END = re.compile(r"\r\n|\n|\r")
_PATH_MARK = re.compile(r"[/\\\0]")
_LONGEST_GUID = 250  # bytes; with an ending a file system takes 255
# A long number as spreadsheets write it, like 1.23E+17: many become one.
SHORTENED = re.compile(r"\d(?:[.,]\d+)?e\+?\d+", re.IGNORECASE)
_SHOWN = 60  # characters of a guid in a message
_LONGEST_LABEL = 100  # letters of one that is looked for among the allowed ones


class Row(NamedTuple):
    """What a source says of one pair.

    Attributes:
        number: as a user counts them, from 1.
        malformed: what can't be read.
        part: train, val or test where the data declare it.
        weight: of the row's loss in training, where rows have one.
    """

    number: int
    guid: str
    tag: str
    malformed: str = ""
    part: str | None = None
    weight: float | None = None


class Record(NamedTuple):
    """One usable row."""

    row: int  # its number, from 1; of a list file the line's
    guid: str
    label: str | None  # as in `label_forms`, with allowed names alone; None when unlabelled
    valid: bool = True  # or the guid could name a file outside of the data folder: none may be opened for it
    part: str | None = None  # train, val or test where the data declare it
    weight: float | None = None  # of its loss in training


def is_valid_guid(guid: str) -> bool:
    """Whether the guid is a plain file name stem: no path, no `..`, no NUL, and not too long for a file's name."""
    if guid in ("", ".", "..") or _PATH_MARK.search(guid):
        return False
    return len(guid) <= _LONGEST_GUID and len(guid.encode("utf-8", "surrogatepass")) <= _LONGEST_GUID


def read_records(
    list_file: Path, *, labels: Sequence[str], quarantine: Quarantine, for_prediction: bool = False
) -> list[Record]:
    """`judge_rows` of a list file; `InputError` as from there and from `read_list`."""
    rows = read_list(Path(list_file), labels, for_prediction=for_prediction)
    return judge_rows(rows, str(list_file), labels=labels, quarantine=quarantine, for_prediction=for_prediction)


def judge_rows(
    rows: Iterable[Row],
    source: str,
    *,
    labels: Sequence[str],
    quarantine: Quarantine,
    for_prediction: bool = False,
    is_valid: Callable[[str], bool] = is_valid_guid,
    task: str = "single_label",
) -> list[Record]:
    """The records of rows: `null` or nothing stands for unlabelled; `is_valid` says which guids can be used.

    What else a tag may be goes by the task, see `label_forms`.

    Training keeps the first row of each guid that has an allowed label. A prediction keeps every row, in order.
    The quarantine takes every row that is left out, or not taken as it stands, and counts the labels.

    Raises:
        InputError: (training) no row can be used; `source` says of what, in the message.
    """
    first_seen: dict[str, Row] = {}
    records = []
    for row in rows:
        names = None if row.tag.casefold() in ("", UNLABELLED) else split_label(row.tag, labels, task)
        unknown = [name for name in names or () if not is_allowed(name, labels, task)]
        faults = _find_faults(row, names, unknown, labels, first_seen, quarantine.labels, is_valid)
        found = list(faults if for_prediction else islice(faults, 1))
        if for_prediction:
            found = [fault for fault in found if fault[0] != Reason.NO_LABEL]
        for reason, action, detail in found:
            action = action if for_prediction else Action.DROPPED
            quarantine.add(row.number, row.guid, reason=reason, action=action, detail=detail)
        if for_prediction or not found:
            valid = is_valid(row.guid)
            label = None if names is None or unknown or not valid else BETWEEN.join(names) or BETWEEN
            records.append(Record(row.number, row.guid, label, valid, row.part, row.weight))
    if not records:
        raise InputError(_no_usable_row(source, quarantine, labels))
    return records


def _find_faults(
    row: Row,
    names: Sequence[str] | None,
    unknown: Sequence[str],
    labels: Sequence[str],
    first_seen: dict[str, Row],
    counts: Counter[str],
    is_valid: Callable[[str], bool],
) -> Iterator[tuple[Reason, Action, str]]:
    """What is wrong with a row, and what a prediction does about it; a training stops at the first fault.

    Counts the labels and notes the guid as seen, unless it was stopped before.
    """
    if row.malformed:
        yield Reason.MALFORMED_ROW, Action.UNLABELLED, row.malformed
    if not is_valid(row.guid):
        detail = f"a guid is a plain file name without its ending, no path, of at most {_LONGEST_GUID} bytes"
        yield Reason.INVALID_GUID, Action.BOTH_MASKED, detail
        return
    if names is None:
        yield Reason.NO_LABEL, Action.DROPPED, f"got '{row.tag}'; a training row needs a label"
    else:
        counts.update(names)
        if unknown:
            yield Reason.UNKNOWN_LABEL, Action.UNLABELLED, _unknown_label_detail(unknown[0], labels)
    # Spellings that differ in Unicode alone are of the same files.
    first = first_seen.setdefault(unicodedata.normalize("NFC", row.guid), row)
    if first is not row:
        other = "" if row.tag == first.tag else f" with another label ('{first.tag}', here '{row.tag}')"
        shortened = "; a spreadsheet has shortened this number" if SHORTENED.fullmatch(row.guid) else ""
        yield Reason.DUPLICATE_GUID, Action.REPEATED, f"first in row {first.number}{other}{shortened}"


def _unknown_label_detail(label: str, labels: Sequence[str]) -> str:
    if list(labels) == [VALUE]:
        return f"got '{label}'; allowed are finite numbers"
    folded = {known.casefold(): known for known in labels}
    close = difflib.get_close_matches(label.casefold(), folded, n=1) if len(label) <= _LONGEST_LABEL else []
    hint = f"; did you mean '{folded[close[0]]}'?" if close else ""
    return f"got '{label}'; allowed: {', '.join(labels)}{hint}"


def _no_usable_row(source: str, quarantine: Quarantine, labels: Sequence[str]) -> str:
    first = quarantine.entries[0]
    counts = Counter(entry.reason for entry in quarantine)
    if Reason.UNKNOWN_LABEL in counts:
        remedy = describe_labels(quarantine.labels, labels)
    elif Reason.NO_LABEL in counts:
        remedy = "A list for training needs a label in every row; this one looks like a list for --predict."
    else:
        shown = printable(repr(first.guid), _SHOWN)
        remedy = f"Expected {EXPECTED}; row {first.row}, {shown}: {first.detail}."
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"no row of {source} can be trained on ({why}). {remedy}"


def read_list(list_file: Path, labels: Sequence[str], *, for_prediction: bool = False) -> Iterator[Row]:
    """The rows of a list file (of any encoding, see `decode_text`), but for blank ones and a header.

    Raises:
        InputError: no such file, an empty one, or one of another form (`refuse_other_formats`).
    """
    source = _read_source(list_file)
    lines = enumerate(_LINE_END.split(decode_text(source)[0]), start=1)
    rows = [(number, _cells(line)) for number, line in lines if line.strip("\0 \t\ufeff")]
    header = rows[0][1] if rows else [""]
    if (kind := name_kind(source)) is not None:
        raise InputError(f"the list file {list_file} is {kind}. It should hold {EXPECTED}, one for each pair.")
    rows = rows[_is_header(header, labels) :]
    if not rows:
        raise InputError(f"the list file {list_file} holds no rows; it should hold {EXPECTED}, one for each pair.")
    refuse_other_formats(list_file, rows, header=header, labels=labels)
    for number, cells in rows:
        fits = len(cells) == 2 or (len(cells) == 1 and for_prediction)
        fault = "" if fits else f"{len(cells)} cell{'s' * (len(cells) != 1)}; expected guid,tag"
        yield Row(number, cells[0], cells[1] if len(cells) == 2 else "", fault)


def _read_source(list_file: Path) -> bytes:
    if not os.path.isfile(list_file):  # Path.is_file raises in a folder that may not be searched
        got = "is not a file" if os.path.exists(list_file) else "does not exist"
        raise InputError(
            f"the list file {list_file} {got}; it should hold {EXPECTED}, one for each pair. Check --data_dir and the "
            "file's name."
        )
    try:
        return read_bounded(list_file, MAX_LIST)
    except OSError as error:
        raise InputError(f"the list file {list_file} cannot be read ({error.strerror}); check its rights.") from error


def _cells(line: str) -> list[str]:
    """Split one line; a quote left open spoils its own line only, not the rest of the file."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(",")]
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
    except csv.Error:
        return [line.strip()]


def _is_header(cells: list[str], labels: Sequence[str]) -> bool:
    """Whether the first row names the columns; one with a label doesn't, unless both words are names of columns."""
    second = cells[1] if len(cells) > 1 else ""
    names_guid, names_tag = cells[0].casefold() in _HEADER_GUID, second.casefold() in _HEADER_TAG
    return (names_guid or names_tag) if second not in labels else (names_guid and names_tag)
