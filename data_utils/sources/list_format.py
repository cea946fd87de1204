"""Lists that aren't lines of guid,tag: what they are, said by name, with what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from data_utils.console.screen import printable
from modeling.errors import InputError

EXPECTED = "lines of guid,tag"
_SEPARATORS = {
    "\t": "tabs",
    ";": "semicolons",
    "|": "vertical bars",
    "\uff0c": "full-width commas",
    "\uff1b": "full-width semicolons",
    "\u3001": "ideographic commas",
    "\u060c": "Arabic commas",
    ":": "colons",
    " ": "spaces",
}
_MVSA_HEADER = re.compile(r"id\ttext,image", re.IGNORECASE)
# Below so many rows equal cells may be chance.
_FEWEST_ROWS = 4
# Rows of a list, from all its parts, that are looked at; and characters of one that are shown.
_LOOKED_AT, _SHOWN = 2000, 40


def refuse_other_formats(
    path: Path, numbered: Sequence[tuple[int, Sequence[str]]], *, header: Sequence[str], labels: Collection[str]
) -> None:
    """Refuse a list most of whose rows are of another form than guid,tag, which would be read as other guids.

    `numbered` are line number and cells of each row; `header` are the cells of the first line, which may be a row.

    Raises:
        InputError: says which form it is, and what to do.
    """
    tags = {"", "null", *(label.casefold() for label in labels)}
    rows = [cells for _, cells in numbered[:: max(1, len(numbered) // _LOOKED_AT)]]
    fault = _find_nuls(rows) or _find_separator(rows, header, tags) or _find_swap(rows, tags)
    if fault is not None:
        line, cells = numbered[0]
        raise InputError(
            f"The list {path} {fault}. Its first row, line {line}, was read as the guid "
            f"{printable(repr(cells[0]), _SHOWN)}."
        )


def _is_most(count: int, rows: Sequence[Sequence[str]]) -> bool:
    return 2 * count > len(rows)


def _find_nuls(rows: Sequence[Sequence[str]]) -> str | None:
    if not _is_most(sum("\0" in cells[0] for cells in rows), rows):
        return None
    return (
        f"holds a NUL in most rows, as UTF-16 without a mark does; save it as UTF-8: {EXPECTED}, with a comma between"
    )


def _find_separator(rows: Sequence[Sequence[str]], header: Sequence[str], tags: Collection[str]) -> str | None:
    """What parts the cells of most rows: a tab wherever it stands, another sign where a label follows it."""
    for sign, name in _SEPARATORS.items():
        count = sum(
            sign in cells[0] and (sign == "\t" or (len(cells) == 1 and _ends_in_tag(cells[0], sign, tags)))
            for cells in rows
        )
        if not _is_most(count, rows):
            continue
        if _MVSA_HEADER.match(",".join(header)):
            return (
                "is MVSA's labelResultAll.txt, which has a label of the text and one of the picture in each row; make "
                f"one label of the two, and write {EXPECTED}, with a comma between"
            )
        return f"parts its cells by {name}; write {EXPECTED}, with a comma between"
    return None


def _ends_in_tag(cell: str, sign: str, tags: Collection[str]) -> bool:
    guid, _, tag = cell.rpartition(sign)
    # A word that is no label may be one that wasn't asked for; of a guid with blanks in it nobody can tell.
    is_word = sign not in " :" and tag.strip() and guid.strip()
    return bool(guid.strip()) and (tag.strip().casefold() in tags or bool(is_word))


def _find_swap(rows: Sequence[Sequence[str]], tags: Collection[str]) -> str | None:
    """Most rows have a label before the comma and none behind it, or behind it what differs in every row."""
    pairs = [cells for cells in rows if len(cells) == 2 and cells[1].casefold() not in tags]
    if not _is_most(len(pairs), rows) or len(pairs) < _FEWEST_ROWS:
        return None
    known = sum(first.casefold() in tags for first, _ in pairs)
    firsts, seconds = len({first for first, _ in pairs}), len({second for _, second in pairs})
    if not _is_most(known, rows) and not (seconds == len(pairs) and 2 * firsts <= len(pairs)):
        return None
    first, second = pairs[-1]  # no header
    return (
        f"has its columns in another order than guid,tag: labels like {printable(repr(first), _SHOWN)} come first, and "
        f"guids like {printable(repr(second), _SHOWN)} behind the comma; swap them"
    )
