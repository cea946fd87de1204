"""What reaches the screen: without characters that steer a terminal, and cut. Files keep the data as they are."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

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


@contextmanager
def without_notices() -> Iterator[None]:
    """Without notices and warnings of any package."""
    earlier = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(earlier)


class _ShownRecord(logging.LogRecord):
    """A notice of any library, ready for the screen."""

    def getMessage(self) -> str:
        return printable_lines(super().getMessage())


def start_logging() -> None:
    """Warnings and errors of all packages to stderr, as they are."""
    outlive_readers()
    logging.setLogRecordFactory(_ShownRecord)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)


class _LastingFile(io.FileIO):
    """A file whose text is dropped while nobody takes it: a pipe without a reader, a hung-up terminal, a full disk."""

    def write(self, content: ReadableBuffer) -> int:
        """As a file's; what can't be written counts as written."""
        written: int | None = None
        with suppress(OSError):
            written = super().write(content)  # None of a pipe that is full and may not be waited for
        return memoryview(content).nbytes if written is None else written


def outlive_readers() -> None:
    """From here on no line that can't be written to the screen ends the program.

    A closed stream is opened on nothing: else the next file that is opened would take its number, and get the
    libraries' warnings into its content.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
            continue
        buffer = getattr(stream, "buffer", None)
        is_unbuffered = type(buffer) is io.FileIO  # by PYTHONUNBUFFERED
        raw = buffer if is_unbuffered else getattr(buffer, "raw", None)
        if type(raw) is io.FileIO and raw.fileno() == number:  # else it is of a test, or a notebook
            lasting = _LastingFile(number, "wb", closefd=False)
            options = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
            target = lasting if is_unbuffered else io.BufferedWriter(lasting)
            setattr(sys, name, io.TextIOWrapper(target, write_through=is_unbuffered, **options))
