"""Standard output and error that outlive their reader."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class _LastingFile(io.FileIO):
    """A file whose text is dropped while nobody takes it: a pipe without a reader, a hung-up terminal, a full disk."""

    def write(self, content: bytes) -> int | None:
        """As a file's; what can't be written counts as written."""
        try:
            return super().write(content)
        except OSError:
            return len(content)


def outlive_readers() -> None:
    """From here on no line that can't be written to the screen ends the program.

    A closed stream is opened on nothing: else the next file that is opened would take its number, and get the
    libraries' warnings into its content.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            with suppress(OSError):
                os.fstat(number)  # the number is a file's by now
                continue
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        elif type(getattr(getattr(stream, "buffer", None), "raw", None)) is not io.FileIO or stream.fileno() != number:
            continue  # of a test, or a notebook
        lasting = io.BufferedWriter(_LastingFile(number, "wb", closefd=False))
        options = {} if stream is None else {"encoding": stream.encoding, "errors": stream.errors}
        setattr(sys, name, io.TextIOWrapper(lasting, line_buffering=stream is None or stream.line_buffering, **options))
