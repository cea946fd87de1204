"""The rows that --data and its companions name: in files, folders and on the hub, by split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datasets import load_dataset

from data_utils.sources.arguments import DataArguments
from data_utils.tables.files import SUFFIXES, find_files, open_table, read_files
from data_utils.tables.folders import SPLITS, WHOLE, read_folder
from data_utils.tables.table import Table
from modeling.errors import InputError, reason_of

_NONE = "none"  # instead of a split's name
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def read_parts(data: DataArguments) -> dict[str, Table]:
    """The table of "train", and those of "val" and "test" where they are declared: files of their own, or splits.

    Raises:
        InputError: what is named isn't there or can't be read, or two flags name rows for one part.
    """
    tables = _read("--data", data.data or (), data)
    parts = {"train": _take_one("--train_split", data.train_split, "train", tables)}
    for part, names, split in (("val", data.val_data, data.val_split), ("test", data.test_data, data.test_split)):
        if names and split:
            raise InputError(f"Got --{part}_data and --{part}_split, which name the same part's rows; leave one out.")
        if names:
            parts[part] = _take_one(f"--{part}_data", None, part, _read(f"--{part}_data", names, data))
        elif (table := _take(f"--{part}_split", split, SPLITS[part], tables)) is not None:
            parts[part] = table
    return parts


def read_asked(flag: str, paths: Sequence[str], data: DataArguments) -> Table:
    """The rows to be predicted: all, or of splits that of `data.test_split`, else "test", else the only one."""
    split = None if data.test_split == _NONE else data.test_split
    return _take_one("--test_split", split, "test", _read(flag, paths, data))


def _take_one(flag: str, asked: str | None, part: str, tables: dict[str, Table]) -> Table:
    """`_take`, also of the only split whatever its name; `InputError` without one."""
    splits = ", ".join(tables)
    table = _take(flag, asked, (*SPLITS[part], *(tables if len(tables) == 1 else ())), tables)
    if table is None:
        raise InputError(f"{flag}: the splits are {splits}, none of them {' or '.join(SPLITS[part])}; name one.")
    return table


def _take(flag: str, asked: str | None, usual: Sequence[str], tables: dict[str, Table]) -> Table | None:
    """Take the split that is asked for out of `tables`, else the first usual one that is left; None without one."""
    split = next((name for name in usual if name in tables), _NONE) if asked is None else asked
    if split == _NONE:
        return None
    if split not in tables:
        there = "the data have no splits" if not tables or WHOLE in tables else f"there are {', '.join(tables)}"
        raise InputError(f"Got {flag} {split!r}; {there} (each split is for one part).")
    table = tables.pop(split)
    if not len(table.dataset):
        raise InputError(f"{table.name} has no rows, only columns ({', '.join(table.dataset.column_names)}).")
    return table


def _read(flag: str, names: Sequence[str], data: DataArguments) -> dict[str, Table]:
    """The tables that paths, globs, URLs or a name on the hub stand for, by split."""
    local = os.path.expanduser(names[0]) if len(names) == 1 else ""
    if os.path.isdir(local):
        return read_folder(flag, Path(local).resolve(), data)
    hub = None if os.path.exists(local) or local.lower().endswith((*SUFFIXES, ".gz")) else _HUB_NAME.fullmatch(local)
    if hub is None:
        return {WHOLE: read_files(find_files(flag, names), data)}
    name, config = hub.groups()
    try:
        splits = load_dataset(name, config, cache_dir=str(data.cache_path() / "hub"))
    except Exception as error:  # the libraries raise every kind
        raise InputError(
            f"{flag} {local} is no folder, no file that ends in {', '.join(SUFFIXES)}, and of the hub it can't "
            f"be read ({reason_of(error)}); check the name, the network, and the right to it (`hf auth login`)."
        ) from error
    return {str(split): open_table(f"{name}, {split}", rows, f"hf://datasets/{name}") for split, rows in splits.items()}
