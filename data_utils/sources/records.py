"""The list file (`guid,tag` per line) to records; rows that cannot be used go to the quarantine."""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_utils.console.screen import printable
from data_utils.sources.encodings import decode_text
from data_utils.sources.file_kinds import name_kind
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


@dataclass(frozen=True)
class Record:
    """One usable row of a list file.

    Attributes:
        row: line number in the file, from 1.
        guid: always a string.
        label: one of the allowed labels; None when unlabelled.
        valid: False when the guid could name a file outside of the data folder: no file may be opened for it.
    """

    row: int
    guid: str
    label: str | None
    valid: bool = True


@dataclass
class _Reading:
    """What is known while the rows of one list are read."""

    labels: Sequence[str]
    quarantine: Quarantine
    for_prediction: bool
    first_seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def fault(self, row: int, guid: str, *, reason: str, action: str, detail: str) -> None:
        """Note a fault; only a prediction has another action than leaving the row out."""
        chosen = action if self.for_prediction else Action.DROPPED
        self.quarantine.add(row, guid, reason=reason, action=chosen, detail=detail)


def is_valid_guid(guid: str) -> bool:
    """Whether the guid is a plain file name stem: no path, no `..`, no NUL, and not too long for a file's name."""
    if guid in ("", ".", "..") or _PATH_MARK.search(guid):
        return False
    return len(guid) <= _LONGEST_GUID and len(guid.encode("utf-8", "surrogatepass")) <= _LONGEST_GUID


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


def _read_source(list_file: Path) -> bytes:
    if not os.path.isfile(list_file):  # Path.is_file raises in a folder that may not be searched
        got = "is not a file" if os.path.exists(list_file) else "does not exist"
        raise InputError(
            f"the list file {list_file} {got}; it should hold one line of guid,tag per pair. "
            "Check --data_dir and the file's name."
        )
    try:
        return read_bounded(list_file, MAX_LIST)
    except OSError as error:
        raise InputError(f"the list file {list_file} cannot be read ({error.strerror}); check its rights.") from error


def _read_rows(list_file: Path, labels: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row that is neither blank nor the header."""
    source = _read_source(list_file)
    lines = enumerate(_LINE_END.split(decode_text(source)[0]), start=1)
    rows = [(number, _cells(line)) for number, line in lines if line.strip("\0 \t\ufeff")]
    header = rows[0][1] if rows else []
    if rows and _is_header(rows[0][1], labels):
        rows = rows[1:]
    kind = name_kind(source)
    if kind is not None:
        raise InputError(f"the list file {list_file} is {kind}. It should hold {EXPECTED}, one for each pair.")
    if not rows:
        raise InputError(f"the list file {list_file} holds no rows; it should hold one line of guid,tag per pair.")
    refuse_other_formats(list_file, rows, header=header, labels=labels)
    return rows


def find_label(tag: str, labels: Sequence[str]) -> str | None:
    """The allowed label that a tag says, in whatever way Unicode writes it; None where it is none of them."""
    if tag in labels:
        return tag
    name = unicodedata.normalize("NFC", tag)
    return next((label for label in labels if unicodedata.normalize("NFC", label) == name), None)


def _unknown_label_detail(label: str, labels: Sequence[str]) -> str:
    folded = {known.casefold(): known for known in labels}
    close = difflib.get_close_matches(label.casefold(), folded, n=1) if len(label) <= _LONGEST_LABEL else []
    hint = f"; did you mean '{folded[close[0]]}'?" if close else ""
    return f"got '{label}'; allowed: {', '.join(labels)}{hint}"


def _duplicate_detail(guid: str, tag: str, first: tuple[int, str]) -> str:
    row, first_tag = first
    label = "" if tag == first_tag else f" with another label ('{first_tag}', here '{tag}')"
    shortened = "; a spreadsheet has shortened this number" if SHORTENED.fullmatch(guid) else ""
    return f"first in row {row}{label}{shortened}"


def _read_record(number: int, cells: list[str], reading: _Reading) -> Record | None:
    """One row to a record; None when a training list cannot use it."""
    guid, tag = cells[0], cells[1] if len(cells) == 2 else ""
    keep = reading.for_prediction
    if len(cells) > 2 or (len(cells) == 1 and not keep):
        detail = f"{len(cells)} cell{'s' * (len(cells) != 1)}; expected guid,tag"
        reading.fault(number, guid, reason=Reason.MALFORMED_ROW, action=Action.UNLABELLED, detail=detail)
        if not keep:
            return None
    if not is_valid_guid(guid):
        detail = f"a guid is a plain file name without its ending, no path, of at most {_LONGEST_GUID} bytes"
        reading.fault(number, guid, reason=Reason.INVALID_GUID, action=Action.BOTH_MASKED, detail=detail)
        return Record(number, guid, None, valid=False) if keep else None
    label = None if tag.casefold() in ("", "null") else find_label(tag, reading.labels) or tag
    if label is not None:
        reading.quarantine.labels[label] += 1
    if label is not None and label not in reading.labels:
        detail = _unknown_label_detail(label, reading.labels)
        reading.fault(number, guid, reason=Reason.UNKNOWN_LABEL, action=Action.UNLABELLED, detail=detail)
        label = None
        if not keep:
            return None
    elif label is None and not keep:
        detail = f"got '{tag}'; a training row needs a label"
        reading.fault(number, guid, reason=Reason.NO_LABEL, action=Action.DROPPED, detail=detail)
        return None
    name = unicodedata.normalize("NFC", guid)  # spellings that differ in Unicode alone are of the same files
    if name in reading.first_seen:
        detail = _duplicate_detail(guid, tag, reading.first_seen[name])
        reading.fault(number, guid, reason=Reason.DUPLICATE_GUID, action=Action.REPEATED, detail=detail)
        return Record(number, guid, label) if keep else None
    reading.first_seen[name] = (number, tag)
    return Record(number, guid, label)


def _no_usable_row(list_file: Path, quarantine: Quarantine, labels: Sequence[str]) -> str:
    entries = quarantine.entries
    counts = Counter(entry.reason for entry in entries)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    text = f"no row of {list_file} can be trained on ({why})."
    if Reason.UNKNOWN_LABEL in counts:
        text += f" {describe_labels(quarantine.labels, labels)}"
    elif Reason.NO_LABEL in counts:
        text += " A list for training needs a label in every row; this one looks like a list for --predict."
    else:
        guid = printable(repr(entries[0].guid), _SHOWN)
        text += f" Expected {EXPECTED}; row {entries[0].row}, {guid}: {entries[0].detail}."
    return text


def read_records(
    list_file: Path, *, labels: Sequence[str], quarantine: Quarantine, for_prediction: bool = False
) -> list[Record]:
    """Read a list file (of any encoding, see `decode_text`): header or none, `null` or nothing for unlabelled.

    Training keeps the first row of each guid that has an allowed label. A prediction keeps every row, in order.

    The quarantine takes every row that is left out, or not taken as it stands, and counts the labels.

    Raises:
        InputError: no such file, an empty one, one of another form (`refuse_other_formats`), or (training) no row that
            can be used.
    """
    reading = _Reading(labels=labels, quarantine=quarantine, for_prediction=for_prediction)
    found = (_read_record(number, cells, reading) for number, cells in _read_rows(Path(list_file), labels))
    records = [record for record in found if record is not None]
    if not records:
        raise InputError(_no_usable_row(Path(list_file), quarantine, labels))
    return records
