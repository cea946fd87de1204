"""Files to cached columns: what a worker does with one picture and with one text, and the caches of both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
from datasets import Dataset, Features, Value

from data_utils.prepare.cache import FileState, build_once, cache_key
from data_utils.prepare.mapping import Workers, map_to_folder
from data_utils.prepare.pair_files import TEXT_SUFFIX, PairFiles
from data_utils.sources.encodings import LOST, decode_text, find_encoding
from data_utils.sources.file_kinds import name_other_than_text
from data_utils.sources.pictures import PICTURE_SUFFIXES, PictureError, PictureSettings, decode_picture
from data_utils.sources.quarantine import Reason
from data_utils.sources.text import clean_text, text_key
from data_utils.system.bounded import MEBIBYTE, read_bounded
from modeling.errors import InputError

# A file beyond is no text of a pair, or no picture, but would fill the memory.
MAX_TEXT_BYTES, MAX_PICTURE_BYTES = 16 * MEBIBYTE, 512 * MEBIBYTE
# A process is started and ended in the time of some dozen pictures, or of some thousand texts.
_PICTURES_PER_WORKER, _TEXTS_PER_WORKER = 32, 4096
PICTURE_FEATURES = Features(
    {
        "image": Value("binary"),
        "image_key": Value("string"),
        "image_reason": Value("string"),
        "image_detail": Value("string"),
    }
)
TEXT_FEATURES = Features(
    {
        "text": Value("string"),
        "text_key": Value("string"),
        "text_encoding": Value("string"),
        "chosen_encoding": Value("string"),
        "text_reason": Value("string"),
        "text_detail": Value("string"),
    }
)


@dataclass(frozen=True)
class CacheOptions:
    """Where and how caches are built."""

    cache_dir: Path
    workers: Workers
    overwrite: bool


def load_picture_row(row: dict[str, Any], settings: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    """Decode the picture of one row {guid, path, kind} in a worker process; faults become reason and detail."""
    name = os.path.basename(row["path"])
    faulty = {"image": None, "image_key": None, "image_reason": Reason.UNREADABLE_IMAGE}
    if row["kind"] == "absent":
        detail = f"no {row['guid']}{PICTURE_SUFFIXES[0]} (or {', '.join(PICTURE_SUFFIXES[1:])})"
        return {**faulty, "image_reason": Reason.MISSING_IMAGE, "image_detail": detail}
    if row["kind"] != "file":
        return {**faulty, "image_detail": f"{name} is not a file that may be read"}
    try:
        source = read_bounded(Path(row["path"]), MAX_PICTURE_BYTES)
        array = decode_picture(source, PictureSettings.from_dict(settings), max_pixels)
    except (OSError, InputError, PictureError) as error:
        return {**faulty, "image_detail": f"{name}: {_reason(error)}"}
    key = hashlib.sha256(source).hexdigest()
    return {"image": memoryview(array).cast("B"), "image_key": key, "image_reason": None, "image_detail": None}


def load_text_row(row: dict[str, Any], mode: str, chosen: str | None) -> dict[str, Any]:
    """Read and clean the text of one row {guid, path, kind} in a worker process; faults become reason and detail.

    `chosen` is the encoding of all texts whose own isn't certain.
    """
    name = os.path.basename(row["path"])
    faulty = {"text": "", "text_key": None, "text_encoding": None, "text_reason": Reason.UNREADABLE_TEXT}
    faulty["chosen_encoding"] = chosen
    if row["kind"] == "absent":
        return {**faulty, "text_reason": Reason.MISSING_TEXT, "text_detail": f"no {row['guid']}{TEXT_SUFFIX}"}
    if row["kind"] != "file":
        return {**faulty, "text_detail": f"{name} is not a file that may be read"}
    try:
        source = read_bounded(Path(row["path"]), MAX_TEXT_BYTES)
    except (OSError, InputError) as error:
        return {**faulty, "text_detail": f"{name}: {_reason(error)}"}
    if kind := name_other_than_text(source):
        return {**faulty, "text_detail": f"{name}: {kind}"}
    raw, encoding = decode_text(source, chosen)
    if encoding == chosen == "utf-8" and LOST in raw:
        encoding = "utf-8 (damaged)"
    text = clean_text(raw, mode)
    key = text_key(raw)
    detail = None
    if not text:
        detail = f"{name} is blank" if key is None else f"{name} holds nothing but URLs and @names"
    reason = None if text else Reason.EMPTY_TEXT
    found = {"text": text, "text_key": key, "text_encoding": encoding, "chosen_encoding": chosen}
    return {**found, "text_reason": reason, "text_detail": detail}


def _reason(error: Exception) -> str | None:
    return error.strerror if isinstance(error, OSError) else str(error)


def _input_columns(guids: Sequence[str], states: Sequence[FileState]) -> dict[str, list[Any]]:
    return {
        "guid": list(guids),
        "path": [state.path for state in states],
        "kind": [state.kind for state in states],
    }


def load_pictures(
    files: Sequence[PairFiles], settings: PictureSettings, options: CacheOptions, *, max_pixels: int
) -> Dataset:
    """Decoded pictures of the files, one row each, from the cache `pictures-*`, which is built when needed."""
    states = [pair.picture for pair in files]
    guids = [pair.guid for pair in files]
    decoder = {**settings.to_dict(), "max_pixels": max_pixels, "pillow": PIL.__version__.split(".")[0]}

    def build(folder: Path) -> None:
        map_to_folder(
            _input_columns(guids, states),
            load_picture_row,
            folder=folder,
            features=PICTURE_FEATURES,
            options={"settings": settings.to_dict(), "max_pixels": max_pixels},
            workers=options.workers,
            rows_per_worker=_PICTURES_PER_WORKER,
            description="Decoding pictures",
        )

    key = cache_key(decoder, list(zip(guids, states, strict=True)))
    return build_once(options.cache_dir, "pictures", key, build, overwrite=options.overwrite)


def find_text_encoding(states: Iterable[FileState]) -> str | None:
    """The encoding of those texts whose own isn't certain, by all of them; see `find_encoding`."""
    return find_encoding(filter(None, map(read_text_file, states)))


def read_text_file(state: FileState) -> bytes | None:
    """The bytes of a text's file; None if it can't be read, or surely is no text."""
    source = _read_file(state, MAX_TEXT_BYTES)
    return None if source is None or name_other_than_text(source) else source


def read_picture_file(state: FileState) -> bytes | None:
    """The bytes of a picture's file; None if it can't be read."""
    return _read_file(state, MAX_PICTURE_BYTES)


def _read_file(state: FileState, limit: int) -> bytes | None:
    if state.kind != "file":
        return None
    try:
        return read_bounded(Path(state.path), limit)
    except (OSError, InputError):
        return None


def load_texts(files: Sequence[PairFiles], mode: str, options: CacheOptions, *, encoding: str | None) -> Dataset:
    """Cleaned texts of the files, one row each, from the cache `texts-*`, which is built when needed.

    `encoding` is of texts whose own isn't certain; None: the one that all of them together make the most sense in,
    which every row then names as chosen_encoding.
    """
    states = [pair.text for pair in files]
    guids = [pair.guid for pair in files]

    def build(folder: Path) -> None:
        map_to_folder(
            _input_columns(guids, states),
            load_text_row,
            folder=folder,
            features=TEXT_FEATURES,
            options={"mode": mode, "chosen": encoding or find_text_encoding(states)},
            workers=options.workers,
            rows_per_worker=_TEXTS_PER_WORKER,
            description="Reading texts",
        )

    key = cache_key({"text_cleaning": mode, "text_encoding": encoding}, list(zip(guids, states, strict=True)))
    return build_once(options.cache_dir, "texts", key, build, overwrite=options.overwrite, checked=True)
