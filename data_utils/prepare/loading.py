"""Files to cached columns: what a worker does with one picture and with one text, and the caches of both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import PIL
from datasets import Dataset, Features, Value

from data_utils.prepare.cache import SCHEMA_VERSION, build_once
from data_utils.prepare.mapping import Columns, map_to_folder
from data_utils.prepare.pair_files import TEXT_SUFFIX, CellReader, FileState, Picture, Pictures, Text
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import LOST, decode_text, find_encoding
from data_utils.sources.quarantine import Fault, Reason
from data_utils.system.bounded import MEBIBYTE, read_bounded
from modeling.errors import InputError
from modeling.file_kinds import name_other_than_text
from modeling.pictures import PICTURE_SUFFIXES, PictureError, PictureSettings, decode_picture
from modeling.text import clean_text, text_key

# A file beyond is no text of a pair, or no picture, but would fill the memory.
_MAX_TEXT_BYTES, _MAX_PICTURE_BYTES = 16 * MEBIBYTE, 512 * MEBIBYTE
_PICTURE_FEATURES = Features(
    {"image": Value("binary"), **dict.fromkeys(("image_key", "image_reason", "image_detail"), Value("string"))}
)
_TEXT_FEATURES = Features(
    dict.fromkeys(
        ("text", "text_key", "text_encoding", "chosen_encoding", "text_reason", "text_detail"), Value("string")
    )
)
_BATCH_SIZE = 32  # rows; decoded pictures that stay in the CPU's caches
Row = dict[str, Any]


class _UnreadableError(Exception):
    """A file that can't be read; its text says why."""


def _read(file: FileState, limit: int) -> bytes:
    """The bytes of a file; `_UnreadableError` where it can't be read, or is larger than `limit`."""
    if file.kind != "file":
        raise _UnreadableError("not a file that may be read")
    try:
        return read_bounded(Path(file.path), limit)
    except (OSError, InputError) as error:
        raise _UnreadableError(getattr(error, "strerror", None) or str(error)) from error


def load_picture_row(
    guid: str,
    file: Picture | list[Picture],
    settings: PictureSettings,
    max_pixels: int,
    read_cell: CellReader | None = None,
) -> Row:
    """Decode the picture of one row in a worker process, or several, whose pixels follow each other.

    Faults become reason and detail; of several pictures one that can't be read is a fault of the row.
    """
    if isinstance(file, list):
        rows = [load_picture_row(guid, each, settings, max_pixels, read_cell) for each in file]
        for number, row in enumerate(rows, start=1):
            if row["image_reason"]:
                return row | {"image_detail": f"picture {number} of {len(rows)}: {row['image_detail']}"}
        keys = ",".join(row["image_key"] for row in rows)
        return rows[0] | {"image": b"".join(row["image"] for row in rows), "image_key": keys}
    found: Row = dict.fromkeys(_PICTURE_FEATURES)
    if isinstance(file, Fault):
        return found | {"image_reason": file.reason, "image_detail": file.detail}
    if isinstance(file, FileState) and file.kind == "absent":
        detail = f"no {guid}{PICTURE_SUFFIXES[0]} (or {', '.join(PICTURE_SUFFIXES[1:])})"
        return found | {"image_reason": Reason.MISSING_IMAGE, "image_detail": detail}
    try:
        if isinstance(file, FileState):
            source = _read(file, _MAX_PICTURE_BYTES)
        else:
            source = read_cell(file) if read_cell else b""
        array = decode_picture(source, settings, max_pixels)
    except (PictureError, _UnreadableError, ValueError) as error:
        detail = f"{os.path.basename(file.path)}: {error}" if isinstance(file, FileState) else str(error)
        return found | {"image_reason": Reason.UNREADABLE_IMAGE, "image_detail": detail}
    return found | {"image": array.tobytes(), "image_key": hashlib.sha256(source).hexdigest()}


def load_text_row(guid: str, file: Text, mode: str, chosen: str | None) -> Row:
    """Read and clean the text of one row in a worker process; faults become reason and detail.

    `chosen` is the encoding of all texts whose own isn't certain.
    """
    found: Row = dict.fromkeys(_TEXT_FEATURES) | {"text": "", "chosen_encoding": chosen}
    if isinstance(file, str):
        return found | _clean(file, mode, "the cell")
    if isinstance(file, Fault):
        return found | {"text_reason": file.reason, "text_detail": file.detail}
    if file.kind == "absent":
        return found | {"text_reason": Reason.MISSING_TEXT, "text_detail": f"no {guid}{TEXT_SUFFIX}"}
    name = os.path.basename(file.path)
    try:
        source = _read(file, _MAX_TEXT_BYTES)
        if kind := name_other_than_text(source):
            raise _UnreadableError(kind)
    except _UnreadableError as error:
        return found | {"text_reason": Reason.UNREADABLE_TEXT, "text_detail": f"{name}: {error}"}
    raw, encoding = decode_text(source, chosen)
    if encoding == chosen == "utf-8" and LOST in raw:
        encoding = "utf-8 (damaged)"
    return found | {"text_encoding": encoding} | _clean(raw, mode, name)


def _clean(raw: str, mode: str, name: str) -> Row:
    """The cleaned text and its key; `name` says what a blank one is of."""
    found: Row = {"text": clean_text(raw, mode), "text_key": text_key(raw)}
    if not found["text"]:
        blank = "is blank" if found["text_key"] is None else "holds nothing but URLs and @names"
        found |= {"text_reason": Reason.EMPTY_TEXT, "text_detail": f"{name} {blank}"}
    return found


def read_text_file(file: FileState) -> bytes | None:
    """The bytes of a text's file; None if it can't be read, or surely is no text."""
    source = read_file(file, _MAX_TEXT_BYTES)
    return None if source is None or name_other_than_text(source) else source


def read_file(file: FileState, limit: int = _MAX_PICTURE_BYTES) -> bytes | None:
    """The bytes of a file; None if it can't be read, or is larger than `limit`."""
    try:
        return _read(file, limit)
    except _UnreadableError:
        return None


def find_text_encoding(files: Iterable[Text]) -> str | None:
    """The encoding of those texts whose own isn't certain, by all of them; see `find_encoding`."""
    return find_encoding(filter(None, (read_text_file(file) for file in files if isinstance(file, FileState))))


def load_pictures(
    guids: Sequence[str],
    files: Pictures,
    settings: PictureSettings,
    data: DataArguments,
    read_cell: CellReader | None,
) -> Dataset:
    """Decoded pictures, one row each, from the cache `pictures-*`, which is built when needed."""
    shaping = {**settings.to_dict(), "max_pixels": data.max_image_pixels, "pillow": PIL.__version__.split(".")[0]}
    key = _key(shaping, guids, files)
    load = partial(load_picture_row, settings=settings, max_pixels=data.max_image_pixels, read_cell=read_cell)

    def build(folder: Path) -> None:
        map_to_folder(
            list(zip(guids, files, strict=True)),
            partial(_load_columns, load),
            folder=folder,
            features=_PICTURE_FEATURES,
            description="Decoding pictures",
            num_workers=data.num_workers(),
            rows_per_worker=64,  # processes are started and ended in the time of some dozen pictures
            batch_size=_BATCH_SIZE,
        )

    return build_once(data.cache_path(), "pictures", key, build, overwrite=data.overwrite_cache)


def load_texts(guids: Sequence[str], files: Sequence[Text], data: DataArguments) -> Dataset:
    """Cleaned texts of the files, one row each, from the cache `texts-*`, which is built when needed.

    Texts whose own encoding isn't certain are of `data.text_encoding`; None: of the one that all of them together make
    the most sense in, which every row then names as chosen_encoding.
    """
    key = _key({"text_cleaning": data.text_cleaning, "text_encoding": data.text_encoding}, guids, files)

    def build(folder: Path) -> None:
        chosen = data.text_encoding or find_text_encoding(files)
        map_to_folder(
            list(zip(guids, files, strict=True)),
            partial(_load_columns, partial(load_text_row, mode=data.text_cleaning, chosen=chosen)),
            folder=folder,
            features=_TEXT_FEATURES,
            description="Reading texts",
            num_workers=data.num_workers(),
            rows_per_worker=2048,
            batch_size=_BATCH_SIZE,
        )

    return build_once(data.cache_path(), "texts", key, build, overwrite=data.overwrite_cache, checked=True)


def _key(settings: dict[str, Any], guids: Sequence[str], files: Sequence[Any]) -> str:
    """Hash of the settings and of every row's guid and content: of a file its path, kind, size and time of change."""
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, settings], sort_keys=True).encode())
    for start in range(0, len(guids), 1000):
        rows = slice(start, start + 1000)
        digest.update(json.dumps([guids[rows], files[rows]]).encode())
    return digest.hexdigest()


def _load_columns(load: Callable[..., Row], rows: Sequence[tuple[str, tuple[Any, ...]]]) -> Columns:
    found = [load(*row) for row in rows]
    return {name: [row[name] for row in found] for name in found[0]}
