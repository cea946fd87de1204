"""Files to cached columns: what a worker does with one picture and with one text, and the caches of both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
from datasets import Dataset, Features, Value

from data_utils.prepare.cache import FileState, build_once, cache_key
from data_utils.prepare.mapping import Columns, map_to_folder
from data_utils.prepare.pair_files import TEXT_SUFFIX, PairFiles
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import LOST, decode_text, find_encoding
from data_utils.sources.file_kinds import name_other_than_text
from data_utils.sources.pictures import PICTURE_SUFFIXES, PictureError, PictureSettings, decode_picture
from data_utils.sources.quarantine import Reason
from data_utils.sources.text import clean_text, text_key
from data_utils.system.bounded import MEBIBYTE, read_bounded
from modeling.errors import InputError

# A file beyond is no text of a pair, or no picture, but would fill the memory.
MAX_TEXT_BYTES, MAX_PICTURE_BYTES = 16 * MEBIBYTE, 512 * MEBIBYTE
PICTURE_FEATURES = Features(
    {"image": Value("binary"), **dict.fromkeys(("image_key", "image_reason", "image_detail"), Value("string"))}
)
TEXT_FEATURES = Features(
    dict.fromkeys(
        ("text", "text_key", "text_encoding", "chosen_encoding", "text_reason", "text_detail"), Value("string")
    )
)

Row = dict[str, Any]


class _UnreadableError(Exception):
    """A file that can't be read; its text says why."""


def _read(row: Row, limit: int) -> bytes:
    """The bytes of the file at a row's path, of its kind (see `FileState`).

    Raises:
        _UnreadableError: it can't be read, or is larger than `limit`.
    """
    if row["kind"] != "file":
        raise _UnreadableError("not a file that may be read")
    try:
        return read_bounded(Path(row["path"]), limit)
    except (OSError, InputError) as error:
        raise _UnreadableError(getattr(error, "strerror", None) or str(error)) from error


def _fault(side: str, reason: Reason, detail: str) -> Row:
    return {f"{side}_reason": reason, f"{side}_detail": detail}


def load_picture_row(row: Row, settings: PictureSettings, max_pixels: int) -> Row:
    """Decode the picture of one row {guid, path, kind} in a worker process; faults become reason and detail."""
    found, name = dict.fromkeys(PICTURE_FEATURES), os.path.basename(row["path"])
    if row["kind"] == "absent":
        detail = f"no {row['guid']}{PICTURE_SUFFIXES[0]} (or {', '.join(PICTURE_SUFFIXES[1:])})"
        return found | _fault("image", Reason.MISSING_IMAGE, detail)
    try:
        source = _read(row, MAX_PICTURE_BYTES)
        array = decode_picture(source, settings, max_pixels)
    except (PictureError, _UnreadableError) as error:
        return found | _fault("image", Reason.UNREADABLE_IMAGE, f"{name}: {error}")
    return found | {"image": array.tobytes(), "image_key": hashlib.sha256(source).hexdigest()}


def load_text_row(row: Row, mode: str, chosen: str | None) -> Row:
    """Read and clean the text of one row {guid, path, kind} in a worker process; faults become reason and detail.

    `chosen` is the encoding of all texts whose own isn't certain.
    """
    found, name = dict.fromkeys(TEXT_FEATURES) | {"text": "", "chosen_encoding": chosen}, os.path.basename(row["path"])
    if row["kind"] == "absent":
        return found | _fault("text", Reason.MISSING_TEXT, f"no {row['guid']}{TEXT_SUFFIX}")
    try:
        source = _read(row, MAX_TEXT_BYTES)
    except _UnreadableError as error:
        return found | _fault("text", Reason.UNREADABLE_TEXT, f"{name}: {error}")
    if kind := name_other_than_text(source):
        return found | _fault("text", Reason.UNREADABLE_TEXT, f"{name}: {kind}")
    raw, encoding = decode_text(source, chosen)
    if encoding == chosen == "utf-8" and LOST in raw:
        encoding = "utf-8 (damaged)"
    found |= {"text": clean_text(raw, mode), "text_key": text_key(raw), "text_encoding": encoding}
    if not found["text"]:
        blank = "is blank" if found["text_key"] is None else "holds nothing but URLs and @names"
        found |= _fault("text", Reason.EMPTY_TEXT, f"{name} {blank}")
    return found


def find_text_encoding(states: Iterable[FileState]) -> str | None:
    """The encoding of those texts whose own isn't certain, by all of them; see `find_encoding`."""
    return find_encoding(filter(None, map(read_text_file, states)))


def read_text_file(state: FileState) -> bytes | None:
    """The bytes of a text's file; None if it can't be read, or surely is no text."""
    source = _read_or_none(state, MAX_TEXT_BYTES)
    return None if source is None or name_other_than_text(source) else source


def read_picture_file(state: FileState) -> bytes | None:
    """The bytes of a picture's file; None if it can't be read."""
    return _read_or_none(state, MAX_PICTURE_BYTES)


def _read_or_none(state: FileState, limit: int) -> bytes | None:
    try:
        return _read(state._asdict(), limit)
    except _UnreadableError:
        return None


def load_pictures(files: Sequence[PairFiles], settings: PictureSettings, data: DataArguments) -> Dataset:
    """Decoded pictures of the files, one row each, from the cache `pictures-*`, which is built when needed."""
    options = {"settings": settings, "max_pixels": data.max_image_pixels}
    key = {**settings.to_dict(), "max_pixels": data.max_image_pixels, "pillow": PIL.__version__.split(".")[0]}
    rows = [(pair.guid, pair.picture) for pair in files]

    def build(folder: Path) -> None:
        _map_rows(rows, load_picture_row, options, folder, PICTURE_FEATURES, data, "Decoding pictures")

    return build_once(data.cache_path(), "pictures", cache_key(key, rows), build, overwrite=data.overwrite_cache)


def load_texts(files: Sequence[PairFiles], mode: str, data: DataArguments) -> Dataset:
    """Cleaned texts of the files, one row each, from the cache `texts-*`, which is built when needed.

    Texts whose own encoding isn't certain are of `data.text_encoding`; None: of the one that all of them together make
    the most sense in, which every row then names as chosen_encoding.
    """
    key = {"text_cleaning": mode, "text_encoding": data.text_encoding}
    rows = [(pair.guid, pair.text) for pair in files]

    def build(folder: Path) -> None:
        chosen = data.text_encoding or find_text_encoding(state for _, state in rows)
        _map_rows(rows, load_text_row, {"mode": mode, "chosen": chosen}, folder, TEXT_FEATURES, data, "Reading texts")

    return build_once(
        data.cache_path(), "texts", cache_key(key, rows), build, overwrite=data.overwrite_cache, checked=True
    )


# Processes are started and ended in the time of some dozen pictures, or of some thousand texts.
_ROWS_PER_WORKER = {load_picture_row: 64, load_text_row: 2048}


def _map_rows(
    rows: Sequence[tuple[str, FileState]],
    function: Callable[..., Row],
    options: dict[str, Any],
    folder: Path,
    features: Features,
    data: DataArguments,
    description: str,
) -> None:
    columns = {"guid": [guid for guid, _ in rows]}
    columns |= {name: [getattr(state, name) for _, state in rows] for name in ("path", "kind")}
    map_to_folder(
        Dataset(pa.table(columns), fingerprint=description),
        _apply_to_rows,
        folder=folder,
        features=features,
        options={"function": function, "options": options},
        description=description,
        num_workers=data.num_workers(),
        rows_per_worker=_ROWS_PER_WORKER[function],
        batch_size=32,  # decoded pictures that stay in the CPU's caches
    )


def _apply_to_rows(batch: Columns, function: Callable[..., Row], options: dict[str, Any]) -> Columns:
    rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
    found = [function(row, **options) for row in rows]
    return {name: [row[name] for row in found] for name in found[0]}
