"""A table: rows of one part of the data, with columns as they were read."""

from __future__ import annotations

from typing import NamedTuple

from datasets import Dataset


class Table(NamedTuple):
    """Rows of files, of a saved data set, or of the hub.

    Attributes:
        name: of what was read, for messages.
        dataset: its columns as they are, memory-mapped, none of them decoded: a picture of `datasets` is its struct of
            bytes and path. A class label keeps its feature, which names the classes.
        folder: where relative paths begin.
    """

    name: str
    dataset: Dataset
    folder: str
