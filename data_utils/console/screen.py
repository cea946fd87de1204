"""What reaches the screen: without characters that steer a terminal, and cut. Files keep the data as they are."""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

from tqdm import tqdm

from data_utils.console.streams import outlive_readers

MAX_CHARACTERS = 2000  # of a line
MAX_LINES = 400  # of a notice
# Control characters but for the tab; those that turn the direction of writing, or aren't seen; halves of characters.
_STEERING = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def printable(value: object, limit: int = MAX_CHARACTERS) -> str:
    """A value as one line of at most some `limit` characters, in which \\x1b and its like stand as they do here."""
    text = str(value)
    shown = _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text[:limit])
    more = max(len(text), len(shown)) - limit
    return shown if more <= 0 else f"{shown[:limit]}… ({more:,} characters more)"


def printable_lines(text: str, max_lines: int = MAX_LINES) -> str:
    """`printable` of each line, and of no more lines than that."""
    lines = text.split("\n")
    rest = [f"… ({len(lines) - max_lines:,} lines more)"] if len(lines) > max_lines else []
    return "\n".join([*map(printable, lines[:max_lines]), *rest])


def show(*parts: str, file: TextIO | None = None) -> None:
    """Print texts, each on lines of its own."""
    print(*map(printable_lines, parts), sep="\n", file=file, flush=True)


def show_error(error: object, *, kind: str = "error") -> None:
    """Print an error's text as one line, beside whatever bar is being drawn."""
    tqdm.write(f"{kind}: {printable(' '.join(str(error).split()))}", file=sys.stderr)


class _ShownRecord(logging.LogRecord):
    """A notice of any library, ready for the screen."""

    def getMessage(self) -> str:
        return printable_lines(super().getMessage())


def start_logging() -> None:
    """Warnings and errors of all packages to stderr, as they are."""
    outlive_readers()
    logging.setLogRecordFactory(_ShownRecord)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
