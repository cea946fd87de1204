"""Lists that aren't lines of guid,tag: what they are, said by name, with what to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from data_utils.console.screen import printable
from modeling.errors import InputError

EXPECTED = "lines of guid,tag"
_SEPARATORS = "\t;|\uff0c\uff1b\u3001\u060c: "  # with the commas and semicolons of Chinese and Arabic
_MVSA_HEADER = "id\ttext,image"
# Below so many rows equal cells may be chance.
_FEWEST_ROWS = 4
# Rows of a list, from all its parts, that are looked at; and characters of one that are shown.
_LOOKED_AT, _SHOWN = 2000, 40
Cells = Sequence[str]


def refuse_other_formats(
    path: Path, numbered: Sequence[tuple[int, Cells]], *, header: Cells, labels: Collection[str]
) -> None:
    """`InputError` for a list most of whose rows are of another form than guid,tag: they would be read as other guids.

    `numbered` are line number and cells of each row; `header` are the cells of the first line, which may be a row.
    """
    tags = {"", "null", *(label.casefold() for label in labels)}
    rows = [cells for _, cells in numbered[:: max(1, len(numbered) // _LOOKED_AT)]]
    fault = _find_nuls(rows) or _find_separator(rows, header, tags) or _find_swap(rows, tags)
    if fault is not None:
        line, cells = numbered[0]
        shown = printable(repr(cells[0]), _SHOWN)
        raise InputError(f"The list {path} {fault}. Its first row, line {line}, was read as the guid {shown}.")


def _find_nuls(rows: Sequence[Cells]) -> str | None:
    if 2 * sum("\0" in cells[0] for cells in rows) <= len(rows):
        return None
    return f"holds a NUL in most rows, as damaged UTF-16 does; save it as UTF-8: {EXPECTED}, with a comma between"


def _find_separator(rows: Sequence[Cells], header: Cells, tags: Collection[str]) -> str | None:
    """What parts the cells of most rows: a tab wherever it stands, another sign where a label follows it."""

    def is_parted(cells: Cells, sign: str) -> bool:
        guid, _, tag = (part.strip() for part in cells[0].rpartition(sign))
        # A word that is no label may be one that wasn't asked for; of a guid with blanks in it nobody can tell.
        return len(cells) == 1 and guid != "" and (tag.casefold() in tags or (sign not in " :" and tag != ""))

    for sign in _SEPARATORS:
        if 2 * sum(sign in cells[0] and (sign == "\t" or is_parted(cells, sign)) for cells in rows) > len(rows):
            if ",".join(header).lower().startswith(_MVSA_HEADER):
                return (
                    "is MVSA's labelResultAll.txt, which has a label of the text and one of the picture in each row; "
                    f"make one label of the two, and write {EXPECTED}, with a comma between"
                )
            return f"parts its cells by {sign!r}; write {EXPECTED}, with a comma between"
    return None


def _find_swap(rows: Sequence[Cells], tags: Collection[str]) -> str | None:
    """Most rows have a label before the comma and none behind it, or behind it what differs in every row."""
    pairs = [cells for cells in rows if len(cells) == 2 and cells[1].casefold() not in tags]
    if 2 * len(pairs) <= len(rows) or len(pairs) < _FEWEST_ROWS:
        return None
    known = sum(first.casefold() in tags for first, _ in pairs)
    firsts, seconds = (len(set(column)) for column in zip(*pairs, strict=True))
    if 2 * known <= len(rows) and (seconds < len(pairs) or 2 * firsts > len(pairs)):
        return None
    first, second = (printable(repr(cell), _SHOWN) for cell in pairs[-1])  # no header
    return (
        f"has its columns in another order than guid,tag: labels like {first} come first, and guids like {second} "
        "behind the comma; swap them"
    )
