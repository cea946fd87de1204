"""Which columns of a table are text, picture, label, name and weight of a row: as flags say, else by usual names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from data_utils.console.screen import printable
from data_utils.sources.arguments import DataArguments
from data_utils.tables.pictures import LISTS
from data_utils.tables.table import Table
from modeling.errors import InputError

logger = logging.getLogger(__name__)
# In lower case; of ids the first that is there, of others the only one.
_USUAL = {
    "text": "text tweet tweet_text sentence caption content message post title review",
    "image": "image picture img photo image_path img_path image_file file_name filename image_url picture_url",
    "label": "label labels tag tags sentiment target class gold_label",
    "id": "guid id tweet_id image_id post_id uid idx index",
}
_SHOWN = 30  # columns that a message lists
_ASIDE = ("label", "id", "weight")


@dataclass(frozen=True)
class Columns:
    """The names of columns; None, or none, where a table has no such column."""

    text: tuple[str, ...]
    image: str | None
    label: tuple[str, ...]
    id: str | None
    weight: str | None

    @property
    def all(self) -> tuple[str, ...]:
        """All that are read."""
        return tuple(filter(None, (*self.text, self.image, *self.label, self.id, self.weight)))


def choose_columns(name: str, there: Sequence[str], data: DataArguments, *, labelled: bool) -> Columns:
    """The columns of a table with the columns `there`; says which were found by their names.

    Where no labels are needed (`labelled`), those that are named may be missing; names and weights of rows too.

    Raises:
        InputError: a named column isn't there; or several can be told by their names, or neither text nor picture, or
            (of `labelled` data) no label.
    """
    given: dict[str, Any] = {
        "text": data.text_column,
        "image": data.image_column and [data.image_column],
        "label": data.label_column,
        "id": data.id_column and [data.id_column],
        "weight": [data.weight_column] if labelled and data.weight_column else None,
    }
    if not labelled:  # a prediction does without labels, and without names of rows
        given |= {kind: () for kind in _ASIDE if not set(given[kind] or ()) <= set(there)}
    named = [column for columns in given.values() for column in columns or ()]
    if missing := [column for column in named if column not in there]:
        raise InputError(f"{name} has no column {printable(missing[0])!r}; {_list(there)}.")
    read = [column for kind in ("text", "image", "label") for column in given[kind] or ()]
    if twice := [column for column in read if read.count(column) > 1]:
        raise InputError(
            f"The column {printable(twice[0])!r} is named twice by --text_column, --image_column and --label_column: "
            "what is to be told would be given away, or stand twice in the text; name each column once."
        )
    free = [column for column in there if column not in named]
    found = {
        kind: columns or ([] if columns == () else _find(kind, free, name, labelled=labelled))
        for kind, columns in given.items()
    }
    if not found["text"] and not found["image"]:
        raise InputError(
            f"No column of {name} is known as texts or pictures by its name; {_list(there)}. Name them with "
            "--text_column and --image_column."
        )
    if labelled and not found["label"]:
        raise InputError(f"No column of {name} has a usual name of labels; {_list(there)}. Name it: --label_column.")
    guessed = [f"{kind} {found[kind][0]!r}" for kind in _USUAL if found[kind] and not given[kind]]
    if guessed:
        rest = "" if found["id"] else "; rows are named by their numbers (--id_column names a column)"
        tell_once(f"Columns of {name} taken by their names: {printable(', '.join(guessed))}{rest}.")
    image, id_, weight = (next(iter(found[kind]), None) for kind in ("image", "id", "weight"))
    return Columns(tuple(found["text"]), image, tuple(found["label"]), id_, weight)


def _find(kind: str, free: Sequence[str], name: str, *, labelled: bool) -> list[str]:
    """The one column of a kind by its name; none where none is."""
    usual = _USUAL.get(kind, "").split()
    found = sorted(
        (column for column in free if column.lower() in usual), key=lambda column: usual.index(column.lower())
    )
    if len(found) > 1 and kind == "label" and not labelled:
        return []
    if len(found) > 1 and kind != "id":
        shown = ", ".join(map(printable, found))
        raise InputError(f"Several columns of {name} may be the {kind}: {shown}. Name one with --{kind}_column.")
    return found[:1]


def check_kinds(table: Table, columns: Columns, task: str | None) -> None:
    """`InputError` for lists or structs where plain values belong: they would be read as they are printed.

    `task` is that of the labels, None where they may be anything.
    """
    plain = {
        "text": columns.text,
        "label": columns.label if task else (),
        "id": (columns.id,),
        "weight": (columns.weight,),
    }
    for kind, name in ((kind, name) for kind, names in plain.items() for name in names if name):
        found = table.dataset.data.schema.field(name).type
        if kind == "label" and task == "multi_label" and any(is_list(found) for is_list in LISTS):
            found = found.value_type
        if pa.types.is_nested(found):
            lists = "; lists of labels are for --task multi_label" if kind == "label" else ""
            raise InputError(
                f"The column {printable(name)!r} of {table.name} holds {printable(found, 200)}, where each {kind} is a "
                f"plain text or number{lists}: write it so, or name another column with --{kind}_column."
            )


@cache
def tell_once(message: str) -> None:
    """Once, as tables are opened for their labels first."""
    logger.info("%s", message)


def _list(there: Sequence[str]) -> str:
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f"it has {', '.join(printable(repr(column), 60) for column in there[:_SHOWN])}{more}"
