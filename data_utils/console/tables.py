"""Tables of text, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from data_utils.console.screen import printable

MAX_CELL = 120  # characters shown


def format_interval(value: float | None, interval: Sequence[float] | None = None, *, std: float | None = None) -> str:
    """0.731 ± 0.004 [0.683, 0.778], without what is None; nothing of a value that isn't defined."""
    if value is None:
        return "-"
    spread = "" if std is None else f" ± {std:.3f}"
    bounds = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f}{spread}{bounds}"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, for the screen: the first to the left, the others to the right."""
    rows = [[printable(cell, MAX_CELL) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, the header first."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
