"""The pictures of a table's column: which of them are in files, and which in the table itself."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from data_utils.console.screen import printable
from data_utils.prepare.pair_files import FileState, Picture, PictureCell, look_at, possible_paths
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import Fault, Reason
from data_utils.tables.table import Table
from modeling.errors import InputError
from modeling.pictures import PICTURE_SUFFIXES

_URL = re.compile(r"https?://", re.IGNORECASE)
# Of short texts: a data URI, or base64 that begins as PNG, JPEG, GIF or WebP do, of at least some 30 bytes.
_PICTURE = re.compile(r"data:.*|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[\w+/\s-]{40,}=*", re.DOTALL | re.ASCII)
# Bytes in a cell that may be a path or a URL, at most; more are the picture itself.
_KINDS = dict.fromkeys((pa.binary(), pa.large_binary()), 0)
_KINDS |= dict.fromkeys((pa.string(), pa.large_string()), 4096)
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
MAX_PICTURES = 16  # per row
_INSIDE = "data:"
_OF_URLS = str.maketrans("-_", "+/")
_EMPTY = Fault(Reason.MISSING_IMAGE, "the cell is empty")


@dataclass(frozen=True)
class TableCells:
    """Reads pictures that stand in tables; a `CellReader`.

    Attributes:
        datasets: memory-mapped, by their fingerprint.
        column: of the pictures.
    """

    datasets: Mapping[str, Dataset]
    column: str

    def __call__(self, cell: PictureCell) -> bytes:
        """The bytes of a picture; ValueError where its text is no base64."""
        found = self.datasets[cell.table].data.column(self.column)[cell.row]
        value = (found.values[cell.item] if isinstance(found, pa.ListScalar) else found).as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value["path"]
        return value if isinstance(value, bytes) else _decode(value)


def locate_pictures(table: Table, column: str, data: DataArguments) -> list[Picture | list[Picture]]:
    """Where the picture of each row is, or its pictures; of those that stand in the table none is read.

    Raises:
        InputError: the column holds no pictures, too many per row, or URLs that may not be fetched; there is no
            `image_dir`.
    """
    if data.image_dir is not None and not os.path.isdir(data.image_dir):
        raise InputError(f"There is no folder {data.image_dir}, where --image_dir lets the paths of pictures begin.")
    texts, counts = _read_short(table, column)
    urls = dict.fromkeys(text.strip() for text in texts if "://" in text and _URL.match(text.strip()))
    fetched: dict[str, Path | str] = {}
    if urls and not data.allow_urls:
        raise InputError(
            f"{sum(text.strip() in urls for text in texts):,} of {len(texts):,} pictures of {table.name} are URLs in "
            f"the column {column!r}, like {printable(next(iter(urls)), 200)}: take --allow_urls to fetch them once, or "
            "name files."
        )
    if urls:
        from data_utils.tables.urls import fetch_urls  # only here, since its library takes a while to load

        fetched = fetch_urls(urls, data.cache_path() / "urls")
    folder, key = os.path.join(os.path.abspath(data.image_dir or table.folder), ""), table.dataset._fingerprint

    def find(text: str, row: int, item: int = 0) -> Picture:
        return (text is not _INSIDE and _locate(text, folder, fetched)) or PictureCell(key, row, item)

    if counts is None:
        rows: list[Picture | list[Picture]] = [find(text, row) for row, text in enumerate(texts)]
    else:
        rows, following = [], iter(texts)
        for row, count in enumerate(counts):
            found = [find(next(following), row, item) for item in range(count)]
            there = [each for each in found if each is not _EMPTY]
            rows.append(there if len(there) > 1 else there[0] if there else _EMPTY)
    indices = table.dataset._indices
    return rows if indices is None else [rows[row] for row in indices.column(0).to_pylist()]


def _locate(text: str, folder: str, fetched: Mapping[str, Path | str]) -> FileState | Fault | None:
    """Where the picture of a short text is; None: in the text itself. A path is tried first, as most are."""
    if text:
        state = look_at(text if text[0] == "/" else folder + text)
        if state.kind == "file":
            return state
    bare = text.strip()
    if _PICTURE.fullmatch(bare):
        return None
    if bare.casefold() in ("", "nan"):
        return _EMPTY
    path = fetched.get(bare) or os.path.join(folder, text)
    if isinstance(path, str) and bare in fetched:
        return Fault(Reason.MISSING_IMAGE, f"{bare}: {path}")
    state = _look_at_named(str(path))
    return Fault(Reason.MISSING_IMAGE, f"no file {path}") if state.kind == "absent" else state


def _look_at_named(path: str) -> FileState:
    """State of a picture's file; where there is none, that of one with this name and an ending behind it."""
    if (state := look_at(path)).kind != "absent":
        return state
    states = map(look_at, possible_paths(path, *PICTURE_SUFFIXES))
    return next((each for each in states if each.kind == "file"), state)


def _read_short(table: Table, column: str) -> tuple[list[str], list[int] | None]:
    """The text of each stored cell (`_INSIDE` where the picture stands there), and of lists how many each row has."""
    cells, counts = table.dataset.data.column(column), None
    if any(is_kind(cells.type) for is_kind in LISTS):
        counts = pc.fill_null(pc.list_value_length(cells), 0).to_numpy()
        cells = pc.list_flatten(cells)
        if counts.max(initial=0) > MAX_PICTURES:
            raise InputError(
                f"Row {counts.argmax() + 1} of {table.name} has {counts.max()} pictures in the column {column!r}; a "
                f"row takes at most {MAX_PICTURES}: leave some of them out."
            )
    names = {field.name for field in cells.type} & {"bytes", "path"} if pa.types.is_struct(cells.type) else ()
    parts = [pc.struct_field(cells, name) for name in sorted(names)] or [cells]  # bytes come before the path
    found = np.full(len(cells), "", dtype=object)
    for part in parts:
        if pc.all(pc.is_null(part, nan_is_null=True), min_count=0).as_py():
            continue
        if pa.types.is_dictionary(part.type):
            part = part.cast(part.type.value_type)
        if pa.types.is_integer(part.type):  # names, as 915657464401580032 of a .jpg
            part = part.cast(pa.string())
        if (limit := _KINDS.get(part.type)) is None:
            raise InputError(
                f"The column {column!r} of {table.name} holds {printable(part.type, 200)}, where pictures are paths, "
                "bytes, base64, URLs, the Image of datasets, or lists of these; name another one with --image_column."
            )
        size = pc.fill_null(pc.binary_length(part), 0).to_numpy()
        is_free = found == ""
        is_short = is_free & (size > 0) & (size <= limit)
        texts = part.filter(pa.array(is_short)).cast(pa.large_binary()).to_numpy()  # UTF-8 that nobody has checked
        found[is_short] = [text.decode(errors="backslashreplace") for text in texts]
        found[is_free & (size > limit)] = _INSIDE
    return found.tolist(), None if counts is None else counts.tolist()


def _decode(text: str) -> bytes:
    """The bytes of base64, also of its variant for URLs, broken into lines, without its padding, or in a data URI."""
    text = "".join(text.split())
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("a data URI that isn't base64")
    text = text.rstrip("=").translate(_OF_URLS)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"neither a path nor base64 ({error})") from error
