"""Standard output and error that outlive their reader."""

from __future__ import annotations

import io
import os
import sys


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
            if not _is_open(number):
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


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
