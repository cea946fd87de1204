"""Rows that a program holds in memory: saved once, as a data set in the cache, which is a table like any other."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features
from datasets.table import InMemoryTable
from PIL import Image

from data_utils.prepare.cache import build_once, cache_folder
from data_utils.tables.text_formats import check_names, to_array
from modeling.errors import InputError, reason_of
from modeling.pictures import PictureError, open_picture

_TAKEN = "a pandas DataFrame, a list of dicts, a Dataset of datasets, or the path of a table"
_PLACE = "The rows"


def are_paths(rows: object) -> bool:
    """Whether rows are given by a path, or several."""
    items = rows if isinstance(rows, list | tuple) and rows else [rows]
    return all(isinstance(item, str | os.PathLike) for item in items)


def name_rows(rows: Any, cache_dir: Path) -> list[str]:
    """What --data takes for rows: their paths, or the folder in the cache where those in memory are saved.

    The folder is named by what the rows hold: the same rows are saved once, and a run finds them again.

    Args:
        rows: a DataFrame, dicts, a `Dataset`, or paths. Pictures may also be PIL's, alone or in lists.
        cache_dir: as `DataArguments.cache_path`.

    Raises:
        InputError: they are nothing of this, none at all, hold what no table does, or can't be saved.
    """
    if are_paths(rows):
        return [os.fspath(path) for path in (rows if isinstance(rows, list | tuple) else [rows])]
    dataset = rows if isinstance(rows, Dataset) else None
    table = _read_columns(rows) if dataset is None else dataset.with_format("arrow")[:]
    if not len(table):
        raise InputError(f"Got no rows, only columns ({', '.join(table.column_names)}).")
    # As they are stored: `datasets` would read the file of each picture when it saves them.
    features = Features.from_arrow_schema(table.schema.remove_metadata())
    if dataset is not None:
        features |= {name: feature for name, feature in dataset.features.items() if _names_classes(feature)}
    saved = Dataset(InMemoryTable(table.cast(features.arrow_schema)))
    digest = hashlib.sha256(repr(saved.features).encode())
    for batch in saved.data.table.to_batches():
        digest.update(batch.serialize())
    key = digest.hexdigest()
    build_once(cache_dir, "rows", key, lambda folder: saved.save_to_disk(str(folder)))
    return [str(cache_folder(cache_dir, "rows", key))]


def _read_columns(rows: Any) -> pa.Table:
    """The columns of a DataFrame, or of dicts, in which a key that one lacks is null."""
    pandas = sys.modules.get("pandas")  # whoever has a DataFrame has imported it
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        names = [str(name) for name in rows.columns]
        columns = [rows.iloc[:, place].tolist() for place in range(len(names))]
    elif isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
        keys = list(dict.fromkeys(key for row in rows for key in row))
        names, columns = list(map(str, keys)), [[row.get(key) for row in rows] for key in keys]
    else:
        got = "no rows" if isinstance(rows, Sequence) and not rows else f"rows as {type(rows).__name__}"
        raise InputError(f"Got {got}; what is taken is {_TAKEN}.")
    check_names(names, _PLACE)
    return pa.table({name: _to_column(name, values) for name, values in zip(names, columns, strict=True)})


def _to_column(name: str, values: list[Any]) -> pa.Array:
    try:
        column = to_array([_to_cell(value) for value in values], from_pandas=True)
        Features.from_arrow_schema(pa.schema([(name, column.type)]))  # which has not all types of Arrow
        return column
    except InputError:
        raise
    except (pa.ArrowException, PictureError, TypeError, ValueError) as error:
        raise InputError(
            f"The column {name!r} of the rows can't be read ({reason_of(error)}); give it texts, numbers, pictures, or "
            "lists of these."
        ) from error


def _to_cell(value: Any) -> Any:
    """As Arrow takes it: a picture as the bytes of a PNG, a path as text."""
    if isinstance(value, Image.Image):
        target = io.BytesIO()
        open_picture(value).save(target, "PNG", compress_level=1)
        return target.getvalue()
    if isinstance(value, list | tuple):
        return [_to_cell(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _names_classes(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", feature), ClassLabel)
