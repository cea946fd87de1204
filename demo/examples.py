"""Pairs out of a run's data to be tried: rows that were held out, where the data are at hand."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import zip_longest

from data_utils.prepare.loading import read_file, read_text_file
from data_utils.prepare.pair_files import FileState, PairSource, Picture, Text
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Fault
from data_utils.sources.records import Record, Rows
from data_utils.splits.split_file import load_split
from data_utils.tables.opening import open_source
from demo.answers import Pair
from evaluation.predict.ensemble import Ensemble
from evaluation.predict.loaded_run import LoadedRun
from modeling.errors import InputError

logger = logging.getLogger(__name__)


def find_examples(ensemble: Ensemble, count: int) -> list[Pair]:
    """Held-out rows, of each label in turn; none, with a notice, where the data can't be read."""
    run = ensemble.first
    if not count or run.data.streaming or not run.folder.split_file.is_file():
        return []
    try:
        return _read_rows(run, set(getattr(load_split(run.folder.split_file), ensemble.choose_split(None))), count)
    except InputError as error:
        logger.warning("There are no examples on the page, as the run's data can't be read: %s", error)
        return []


def _read_rows(run: LoadedRun, wanted: set[str], count: int) -> list[Pair]:
    """The first of the wanted rows, of each label in turn."""
    source = open_source(replace(run.data, allow_urls=False))  # nothing is fetched
    records: dict[str | None, list[Record]] = {}
    for record in source.rows(run.data.labels or []):
        if record.guid in wanted:
            wanted.remove(record.guid)  # a second row of this name was not taken
            records.setdefault(record.label, []).append(record)
    dealt = [record for turn in zip_longest(*records.values()) for record in turn if record is not None][:count]
    nothing = [None] * len(dealt)
    chosen = Rows([record.row for record in dealt], [record.guid for record in dealt], nothing, nothing, nothing)
    pairs = zip(*source.locate(chosen), strict=True)
    return [Pair(_read_text(text), _read_picture(source, picture)) for text, picture in pairs]


def _read_text(text: Text) -> str | None:
    if isinstance(text, FileState):
        content = read_text_file(text)
        return None if content is None else decode_text(content)[0]
    return None if isinstance(text, Fault) else text


def _read_picture(source: PairSource, picture: Picture | list[Picture]) -> bytes | None:
    first = picture[0] if isinstance(picture, list) else picture
    if isinstance(first, Fault):
        return None
    if isinstance(first, FileState):
        return read_file(first)
    try:
        return source.read_cell(first) if source.read_cell else None
    except ValueError:
        return None
