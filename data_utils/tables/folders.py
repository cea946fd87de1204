"""Folders that hold rows: a saved data set of `datasets`, pictures by class or with a metadata file, raw MVSA."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, DatasetDict, Features, Value, load_from_disk

from data_utils.prepare.pair_files import PairFiles, PairFolder, pair_folder
from data_utils.sources.arguments import DEFAULT_LABELS, DataArguments
from data_utils.sources.encodings import decode_text, find_encoding
from data_utils.sources.records import is_valid_guid
from data_utils.system.bounded import MAX_DOCUMENT, MEBIBYTE, read_bounded
from data_utils.tables.files import find_files, keep, open_table, read_files, write_tables
from data_utils.tables.table import Table
from modeling.errors import InputError, reason_of
from modeling.pictures import PICTURE_SUFFIXES

logger = logging.getLogger(__name__)
WHOLE = ""  # in the place of a split's name, of what has no splits
SPLITS = {"train": ("train", "training"), "val": ("validation", "valid", "val", "dev"), "test": ("test", "testing")}
_SAVED, _MVSA = ("dataset_dict.json", "state.json"), "labelResultAll.txt"
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def read_folder(flag: str, folder: Path, data: DataArguments) -> dict[str, Table]:
    """The tables of a folder by split; `InputError` where it holds none, or they can't be read."""
    if any(os.path.isfile(folder / name) for name in _SAVED):
        return _read_saved(flag, folder)
    if os.path.isfile(folder / DataArguments.train_file):
        raise InputError(f"{flag} {folder} is a folder of pairs, whose rows a list names; name a list, or a table.")
    if os.path.isfile(folder / _MVSA):
        return {WHOLE: _read_mvsa(folder, data)}
    folders = sorted(path.name for path in folder.glob("[!.]*/"))
    splits = [name for name in folders if any(name in names for names in SPLITS.values())]
    if splits and splits != folders:
        raise InputError(
            f"{flag} {folder} has folders of splits, {', '.join(splits)}, and others; move those elsewhere."
        )
    return {name: _read_pictures(flag, folder / name, data) for name in splits or [WHOLE]}


def _read_saved(flag: str, folder: Path) -> dict[str, Table]:
    try:
        saved = load_from_disk(str(folder))
        found = dict(saved) if isinstance(saved, DatasetDict) else {WHOLE: saved}
        for dataset in found.values():
            dataset.data.validate(full=True)  # what is damaged would end the process where it is read
    except Exception as error:  # damage makes the libraries raise every kind
        raise InputError(f"{flag} {folder} can't be read ({reason_of(error)}); save that data set again.") from error
    return {split: open_table(str(folder / split), dataset, str(folder)) for split, dataset in found.items()}


def _read_pictures(flag: str, folder: Path, data: DataArguments) -> Table:
    """The rows of a metadata file, else each picture with the name of its class's folder."""
    metadata = [str(folder / name) for name in _METADATA if os.path.isfile(folder / name)]
    if len(metadata) == 1:
        table = read_files(find_files(flag, metadata), data)
        is_named = "file_name" in table.dataset.column_names and "image" not in table.dataset.column_names
        return table._replace(dataset=table.dataset.rename_column("file_name", "image")) if is_named else table
    paths = [path.relative_to(folder) for pattern in ("[!.]*", "[!.]*/[!.]*") for path in folder.glob(pattern)]
    pictures = sorted(str(path) for path in paths if path.suffix.lower() in PICTURE_SUFFIXES)
    classes = sorted({os.path.dirname(picture) for picture in pictures})
    is_deep = next(folder.glob("[!.]*/[!.]*/"), None) is not None
    if metadata or not pictures or is_deep or (classes[0] == "" and len(classes) > 1):
        raise InputError(
            f"{flag} {folder} holds none of {data.train_file}, {', '.join(_SAVED)} and {_MVSA}, not one of "
            f"{', '.join(_METADATA)}, and no folder of pictures for each class with neither folders in it nor pictures "
            "beside; a table in files is named by these, or by a glob."
        )
    columns: dict[str, list[str] | list[int]] = {"image": pictures}
    features = Features({"image": Value("string")})
    if classes != [""]:
        columns["label"] = [classes.index(os.path.dirname(picture)) for picture in pictures]
        features["label"] = ClassLabel(names=classes)
    table = pa.table(columns).cast(features.arrow_schema)
    dataset = keep(data, [str(folder), pictures], lambda target: write_tables(target / "0.arrow", [table]))
    return open_table(str(folder), dataset, str(folder))


def _read_mvsa(folder: Path, data: DataArguments) -> Table:
    """Id, text, picture, and the label that two of MVSA's merge to (Xu and Mao 2017); opposite ones are left out.

    MVSA-Multiple has those of three annotators, whose majority is taken, of the text and of the picture.
    """
    files, rows, conflicts = PairFolder(pair_folder(folder)), list[tuple[str, str, PairFiles]](), 0
    lines = decode_text(read_bounded(folder / _MVSA, MAX_DOCUMENT))[0].splitlines()
    for number, line in enumerate(lines, start=1):
        guid, *votes = (cell.strip() for cell in line.split("\t"))
        if not guid or (number == 1 and guid.lower() == "id"):
            continue
        pairs = [vote.split(",") for vote in votes]
        is_sound = all(len(pair) == 2 and set(pair) <= set(DEFAULT_LABELS) for pair in pairs)
        if not is_sound or len(pairs) not in (1, 3) or not is_valid_guid(guid):
            raise InputError(
                f"{folder / _MVSA}, line {number}: got {line[:80]!r}, where an id and one or three text,image pairs of "
                f"{', '.join(DEFAULT_LABELS)} belong, with tabs between; copy the file again."
            )
        label = _merge(pairs)
        if label is None:
            conflicts += 1
        else:
            rows.append((guid, label, files.find(guid)))
    logger.info(
        "%s: %d rows are left out, as their labels contradict each other; %d stay.", folder, conflicts, len(rows)
    )
    build = partial(_write_pairs, rows, data.text_encoding)
    return open_table(str(folder), keep(data, [data.text_encoding, rows], build), str(files.path))


def _merge(pairs: Sequence[Sequence[str]]) -> str | None:
    """The label of one or three (text, image) pairs; None where they contradict each other."""
    (text, of_text), (image, of_image) = (Counter(side).most_common(1)[0] for side in zip(*pairs, strict=True))
    if 2 * min(of_text, of_image) <= len(pairs) or {text, image} == {"positive", "negative"}:
        return None
    return image if text == "neutral" else text


def _write_pairs(rows: Sequence[tuple[str, str, PairFiles]], encoding: str | None, folder: Path) -> None:
    guids, labels, pairs = zip(*rows, strict=True) if rows else ((), (), ())
    sources = [read_bounded(Path(pair.text.path), MEBIBYTE) if pair.text.kind == "file" else None for pair in pairs]
    encoding = encoding or find_encoding(source for source in sources if source is not None)
    columns = {
        "id": guids,
        "text": [None if source is None else decode_text(source, encoding)[0] for source in sources],
        "image": [os.path.basename(pair.picture.path) or None for pair in pairs],
        "label": labels,
    }
    write_tables(folder / "0.arrow", [pa.table(columns, pa.schema([(name, pa.string()) for name in columns]))])
