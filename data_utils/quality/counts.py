"""What is in the data: rows, labels, what is missing, encodings, scripts, lengths of texts, sizes of pictures."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from data_utils.near.texts import fold_text
from data_utils.prepare.pair_files import CellReader, FileState, Picture, PictureCell, Pictures
from data_utils.prepare.pairs import Pairs
from data_utils.sources.label_forms import BETWEEN, VALUE, name_labels
from modeling.pictures import PictureError, read_header

_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
NO_SCRIPT = "none"
Header = tuple[int, int, str, str]


def count_rows(pairs: Pairs, labels: Sequence[str]) -> dict[str, Any]:
    """Plain counts of the rows of `load_pairs`, and what the quarantine holds."""
    columns = pairs.dataset.select_columns(["label", "text", "text_present", "image_present"]).with_format(None)[:]
    names = name_labels(np.asarray(columns["label"]), labels)
    classes = None if list(labels) == [VALUE] else Counter(part for name in names for part in name.split(BETWEEN))
    texts = [text for text, is_there in zip(columns["text"], columns["text_present"], strict=True) if is_there]
    return {
        "rows": len(names),
        "labels": classes and {label: classes[label] for label in labels},
        "parts": {part: count for part, count in Counter(pairs.parts).items() if part},
        "without": {side: columns[f"{side}_present"].count(False) for side in ("text", "image")},
        "quarantine": dict(Counter(entry.reason for entry in pairs.quarantine).most_common()),
        "encodings": dict(Counter(encoding for _, encoding, _ in pairs.quarantine.decoded).most_common()),
        "scripts": dict(Counter(map(find_script, texts)).most_common()),
        "characters": describe_numbers([len(text) for text in texts]),
    }


def describe_numbers(values: Sequence[float]) -> dict[str, float]:
    """The least, the largest and some quantiles; nothing of no values."""
    return {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()} if values else {}


def find_script(text: str) -> str:
    """The script of most letters of a text, as Unicode names it (LATIN, CJK, ...); "none" of a text without letters.

    Of a text that is folded as for `find_near_texts`. Which language it is, is not said: that takes a model of
    languages, and those that are small are wrong too often about a tweet's dozen words.
    """
    scripts = Counter(_script_of(letter) for letter in fold_text(text) if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else NO_SCRIPT


@lru_cache(maxsize=100_000)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, NO_SCRIPT).split()[0].partition("-")[0]


def read_headers(pictures: Pictures, read_cell: CellReader | None) -> list[Header | None]:
    """Width, height, mode and format of each row's (first) picture as it is stored; None where it has no header.

    Of a file only its beginning is read.
    """
    return [_read_header(each[0] if isinstance(each, list) else each, read_cell) for each in pictures]


def _read_header(picture: Picture, read_cell: CellReader | None) -> Header | None:
    try:
        if isinstance(picture, FileState):
            return read_header(picture.path) if picture.kind == "file" else None
        return read_header(read_cell(picture)) if read_cell and isinstance(picture, PictureCell) else None
    except (PictureError, ValueError):
        return None


def count_headers(headers: Iterable[Header | None]) -> dict[str, Any]:
    """Sizes, modes and formats of pictures as they are stored."""
    known = [header for header in headers if header is not None]
    return {
        "width": describe_numbers([header[0] for header in known]),
        "height": describe_numbers([header[1] for header in known]),
        "modes": dict(Counter(header[2] for header in known).most_common()),
        "formats": dict(Counter(header[3] for header in known).most_common()),
    }
