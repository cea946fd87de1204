"""The rows of a source to records; those that cannot be used go to the quarantine.

A source gives `Rows`, as `read_list` those of a list file (`guid,tag` per line); `judge_rows` judges them all alike.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

from data_utils.console.screen import printable
from data_utils.sources.encodings import decode_text
from data_utils.sources.label_forms import BETWEEN, UNLABELLED, VALUE, is_allowed, split_label
from data_utils.sources.list_format import EXPECTED, refuse_other_formats
from data_utils.sources.quarantine import Action, Quarantine, Reason
from data_utils.sources.row_losses import describe_labels
from data_utils.system.bounded import MEBIBYTE, read_bounded
from modeling.errors import InputError
from modeling.file_kinds import name_kind

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


class Record(NamedTuple):
    """One row: its number, its name, and what it says of its label."""

    row: int
    guid: str
    label: str | None


@dataclass(frozen=True)
class Rows:
    """N rows by columns: an object for each of them would take longer than all that is asked of it.

    Attributes:
        numbers: as a user counts them, from 1; of a list file those of its lines.
        labels: as they are written; of judged rows as in `label_forms`, with allowed names alone, None when unlabelled.
        parts: train, val or test where the data declare it.
        weights: of the rows' losses in training, where rows have one.
        malformed: what can't be read, by the row's place, from 0.
    """

    numbers: Sequence[int]
    guids: Sequence[str]
    labels: Sequence[str | None]
    parts: Sequence[str | None]
    weights: Sequence[float | None]
    malformed: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.guids)

    def __iter__(self) -> Iterator[Record]:
        return map(Record, self.numbers, self.guids, self.labels)


class _Label(NamedTuple):
    """What a row may say of its label: the names (None: of none), the first one that isn't allowed, and the label."""

    names: Sequence[str] | None = None
    unknown: str | None = None
    label: str | None = None


def is_valid_guid(guid: str) -> bool:
    """Whether the guid is a plain file name stem: no path, no `..`, no NUL, and not too long for a file's name."""
    if guid in ("", ".", "..") or _PATH_MARK.search(guid):
        return False
    return len(guid) <= _LONGEST_GUID and len(guid.encode("utf-8", "surrogatepass")) <= _LONGEST_GUID


def read_records(
    list_file: Path, *, labels: Sequence[str], quarantine: Quarantine, for_prediction: bool = False
) -> Rows:
    """`judge_rows` of a list file; `InputError` as from there and from `read_list`."""
    rows = read_list(Path(list_file), labels, for_prediction=for_prediction)
    return judge_rows(rows, str(list_file), labels=labels, quarantine=quarantine, for_prediction=for_prediction)


def judge_rows(
    rows: Rows,
    source: str,
    *,
    labels: Sequence[str],
    quarantine: Quarantine,
    for_prediction: bool = False,
    has_files: bool = True,
    task: str = "single_label",
) -> Rows:
    """The usable rows: `null` or nothing stands for unlabelled; where `has_files`, guids have to be valid.

    What else a label may be goes by the task, see `label_forms`.

    Training keeps the first row of each guid that has an allowed label. A prediction keeps every row, in order.
    The quarantine takes every row that is left out, or not taken as it stands, and counts the labels.

    Raises:
        InputError: (training) no row can be used; `source` says of what, in the message.
    """
    known = {text: _read_label(text or "", labels, task) for text in dict.fromkeys(rows.labels)}
    invalid = {place for place, guid in enumerate(rows.guids) if not is_valid_guid(guid)} if has_files else set[int]()
    unread = invalid if for_prediction else invalid | rows.malformed.keys()
    read = [text for place, text in enumerate(rows.labels) if place not in unread] if unread else rows.labels
    for text, count in Counter(read).items():
        for name in known[text].names or ():
            quarantine.labels[name] += count
    faulty = set[int]()
    for place, reason, action, detail in _find_faults(rows, known, invalid, labels, for_prediction):
        if for_prediction or place not in faulty:
            action = action if for_prediction else Action.DROPPED
            quarantine.add(rows.numbers[place], rows.guids[place], reason=reason, action=action, detail=detail)
        faulty.add(place)
    label_of = {text: label.label for text, label in known.items()}
    columns: list[Any] = [rows.numbers, rows.guids, [label_of[text] for text in rows.labels], rows.parts, rows.weights]
    for place in invalid:
        columns[2][place] = None
    if faulty and not for_prediction:
        kept = [place not in faulty for place in range(len(rows))]
        columns = [list(compress(column, kept)) for column in columns]
    if not columns[0]:
        raise InputError(_no_usable_row(source, quarantine, labels))
    return Rows(*columns)


def _read_label(text: str, labels: Sequence[str], task: str) -> _Label:
    if text.casefold() in ("", UNLABELLED):
        return _Label()
    names = split_label(text, labels, task)
    unknown = next((name for name in names if not is_allowed(name, labels, task)), None)
    return _Label(names, unknown, None if unknown is not None else BETWEEN.join(names) or BETWEEN)


def _find_faults(
    rows: Rows, known: Mapping[str | None, _Label], invalid: Set[int], labels: Sequence[str], for_prediction: bool
) -> Iterator[tuple[int, Reason, Action, str]]:
    """Places of rows, what is wrong there, and what a prediction does about it; of a training the first fault counts.

    Spellings of guids that differ in Unicode alone are of the same files.
    """
    for place, detail in rows.malformed.items():
        yield place, Reason.MALFORMED_ROW, Action.UNLABELLED, detail
    for place in invalid:
        detail = f"a guid is a plain file name without its ending, no path, of at most {_LONGEST_GUID} bytes"
        yield place, Reason.INVALID_GUID, Action.BOTH_MASKED, detail
    without = {text for text, label in known.items() if label.label is None}
    unlabelled = {place for place, text in enumerate(rows.labels) if text in without} if without else set()
    for place in unlabelled - invalid:
        text = rows.labels[place]
        if (unknown := known[text].unknown) is not None:
            yield place, Reason.UNKNOWN_LABEL, Action.UNLABELLED, _unknown_label_detail(unknown, labels)
        elif not for_prediction:
            yield place, Reason.NO_LABEL, Action.DROPPED, f"got '{text}'; a training row needs a label"
    names = rows.guids if "".join(rows.guids).isascii() else [unicodedata.normalize("NFC", guid) for guid in rows.guids]
    if len(set(names)) == len(names):
        return
    unseen, firsts = invalid if for_prediction else invalid | rows.malformed.keys() | unlabelled, dict[str, int]()
    for place, name in enumerate(names):
        if place not in unseen and (first := firsts.setdefault(name, place)) != place:
            said, other = rows.labels[place], rows.labels[first]
            differs = "" if said == other else f" with another label ('{other}', here '{said}')"
            shortened = "; a spreadsheet has shortened this number" if SHORTENED.fullmatch(rows.guids[place]) else ""
            detail = f"first in row {rows.numbers[first]}{differs}{shortened}"
            yield place, Reason.DUPLICATE_GUID, Action.REPEATED, detail


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
        remedy = "A training needs labels; rows without are for --predict."
    else:
        shown = printable(repr(first.guid), _SHOWN)
        remedy = f"The first is row {first.row}, {shown}: {first.detail}."
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"no row of {source} can be trained on ({why}). {remedy}"


def read_list(list_file: Path, labels: Sequence[str], *, for_prediction: bool = False) -> Rows:
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
    fitting, nothing = (1, 2) if for_prediction else (2,), [None] * len(rows)
    counts = {place: len(cells) for place, (_, cells) in enumerate(rows) if len(cells) not in fitting}
    return Rows(
        numbers=[number for number, _ in rows],
        guids=[cells[0] for _, cells in rows],
        labels=[cells[1] if len(cells) == 2 else "" for _, cells in rows],
        parts=nothing,
        weights=nothing,
        malformed={place: f"{count} cell{'s' * (count != 1)}; expected guid,tag" for place, count in counts.items()},
    )


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
