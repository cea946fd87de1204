"""The quarantine: every row that was not taken as it stood, why, and what was done about it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from data_utils.system.files import write_csv

logger = logging.getLogger(__name__)
QUARANTINE_FILE = "quarantine.csv"
ENCODINGS_FILE = "encodings.csv"
DECODED_COLUMNS = ("guid", "encoding", "text")
_SHOWN, _LEAD = 60, 20  # characters of a text, and how many come before the one that tells
COLUMNS = ("row", "guid", "reason", "action", "detail")


class Reason(StrEnum):
    """What is wrong with a row."""

    MISSING_TEXT = "missing_text"
    EMPTY_TEXT = "empty_text"
    UNREADABLE_TEXT = "unreadable_text"
    MISSING_IMAGE = "missing_image"
    UNREADABLE_IMAGE = "unreadable_image"
    INVALID_GUID = "invalid_guid"
    DUPLICATE_GUID = "duplicate_guid"
    UNKNOWN_LABEL = "unknown_label"
    NO_LABEL = "no_label"
    MALFORMED_ROW = "malformed_row"


class Action(StrEnum):
    """What was done about it."""

    MASKED = "masked"
    DROPPED = "dropped"
    MASKED_NOT_DROPPED = "masked (a prediction drops no row)"
    BOTH_MASKED = "both masked"
    UNLABELLED = "taken as unlabelled"
    REPEATED = "repeated"


class Hint(NamedTuple):
    """What may explain a fault; `is_other_name`: the list writes the guid in another way than the file."""

    text: str
    is_other_name: bool = False


class Fault(NamedTuple):
    """What is wrong with a text or a picture."""

    reason: str
    detail: str
    hint: Hint | None = None

    def __str__(self) -> str:
        return self.detail if self.hint is None else f"{self.detail}; {self.hint.text}"


@dataclass(frozen=True)
class Entry:
    """One line of the quarantine; `row` is the line number in the list file, from 1."""

    row: int
    guid: str
    reason: str
    action: str
    detail: str = ""


@dataclass
class Quarantine:
    """Collects entries (one per fault of a row) and notes (plain counts that are no fault).

    Attributes:
        notes: for the screen.
        labels: rows by the label they carry, allowed or not.
        decoded: guid, encoding and beginning of each text that isn't UTF-8.
    """

    notes: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    decoded: list[tuple[str, str, str]] = field(default_factory=list)
    _entries: list[Entry] = field(default_factory=list)

    def add(self, row: int, guid: str, *, reason: str, action: str, detail: str = "") -> None:
        """Record one fault of one row."""
        self._entries.append(Entry(row, guid, reason, action, detail))

    def add_decoded(self, guid: str, encoding: str, text: str) -> None:
        """Record that a text is not UTF-8, with its beginning or the piece around its first character beyond ASCII."""
        odd = next((place for place, character in enumerate(text) if character > "\x7f"), 0)
        start = odd - _LEAD if odd >= _SHOWN else 0
        end = "..." if len(text) > start + _SHOWN else ""
        self.decoded.append((guid, encoding, f"{'...' if start else ''}{text[start : start + _SHOWN]}{end}"))

    @property
    def entries(self) -> list[Entry]:
        """All entries in the order of the list file's rows."""
        return sorted(self._entries, key=lambda entry: entry.row)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def summary(self) -> str:
        """Counts and notes for the screen, one per line; empty when there is nothing to say."""
        counts = Counter((entry.reason, entry.action) for entry in self._entries)
        lines = [f"{reason}: {count} {action}" for (reason, action), count in sorted(counts.items())]
        examples = {encoding: f"{guid}: {text}" for guid, encoding, text in reversed(self.decoded)}
        lines += [
            f"{count} texts are not UTF-8 and were decoded as {encoding} ({ENCODINGS_FILE}), like {examples[encoding]}"
            for encoding, count in Counter(encoding for _, encoding, _ in self.decoded).most_common()
        ]
        return "\n".join([*lines, *self.notes])

    def tell(self, path: Path) -> None:
        """Show the summary, and where `save` wrote the rows."""
        if summary := self.summary():
            logger.info("%s\nEach is a row of %s.", summary, path)

    def save(self, path: Path, *, keep_empty: bool = True) -> None:
        """Write `path`, which ends in `QUARANTINE_FILE`, and beside it `encodings.csv`, if texts aren't UTF-8.

        Without `keep_empty` the former is written only if it has an entry. `InputError` where a file can't be written.
        """
        if self._entries or keep_empty:
            write_csv(path, [COLUMNS, *map(astuple, self.entries)])
        if self.decoded:
            beside = path.with_name(path.name.removesuffix(QUARANTINE_FILE) + ENCODINGS_FILE)
            write_csv(beside, [DECODED_COLUMNS, *self.decoded])
