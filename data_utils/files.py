"""Writing files whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_utils.errors import InputError


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: readers never meet half of it. Parent folders are made.

    Raises:
        InputError: it can't be written.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror}); choose a folder that may be written to.") from error
    finally:
        with suppress(OSError):  # it was moved, or never made
            temporary.unlink()


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write comma-separated rows, the header among them, quoted where needed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_text(path, buffer.getvalue())
