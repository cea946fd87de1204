"""Files of any run: JSON, tables and pictures, whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_utils.system.files import write_bytes, write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_json(path: Path, content: Any) -> None:
    """Write JSON that any reader takes: indented, UTF-8, and without NaN (`ValueError`)."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one or more {column: value} as CSV, with the columns of the fullest; what a row lacks stays empty."""
    columns = next(list(row) for row in rows if len(row) == max(map(len, rows)))
    write_csv(path, [columns, *([row.get(column) for column in columns] for row in rows)])


def write_figure(path: Path, figure: Figure) -> None:
    """Write a picture of matplotlib's as PNG; `InputError` where it can't be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())
