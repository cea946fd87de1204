"""Shards to one Arrow file of prepared rows, for a part that is met again and again, like the one for validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from data_utils.prepare.cache import SCHEMA_VERSION, build_once
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pairs import add_row_index
from data_utils.prepare.tokens import tokenizer_key
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import ShardError, naming
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import Entry, Quarantine
from data_utils.stream.rows import NumberedRow, RowPreparer
from modeling.errors import InputError

FEATURES = Features(
    {
        "guid": Value("string"),
        "label": Value("int64"),
        "text": Value("string"),
        "input_ids": List(Value("int32")),
        "image": Value("binary"),
        "text_present": Value("bool"),
        "image_present": Value("bool"),
    }
)
_QUARANTINE = "quarantine.json"
_ROWS_AT_A_TIME = 64


def load_part(
    shards: ShardSet, prepare: RowPreparer, *, cache_dir: Path, limit: int | None = None, overwrite: bool = False
) -> tuple[Dataset, Quarantine]:
    """All labelled rows of a part, or of its first `limit` rows, decoded and tokenised once into the cache.

    Args:
        shards: of the part.
        prepare: rows of shards -> rows of the data set.
        cache_dir: folder of all caches.
        limit: most rows read; shards written by this program hold them in a random order.
        overwrite: build the cache again.

    Returns:
        Memory-mapped rows with the columns of the collator and row_index, and what was wrong with others.

    Raises:
        InputError: a shard is damaged, no row is usable, or the cache can't be written.
    """

    def build(folder: Path) -> None:
        entries: list[Entry] = []
        with pa.ipc.new_stream(str(folder / "part.arrow"), FEATURES.arrow_schema) as writer:
            for rows in _iterate_prepared(shards, prepare, limit, entries):
                kept = [row for row in rows if row["label"] != NO_LABEL_ID]
                columns = {name: [row[name] for row in kept] for name in FEATURES}
                writer.write_table(pa.table(columns, schema=FEATURES.arrow_schema))
        (folder / _QUARANTINE).write_text(json.dumps([astuple(entry) for entry in entries]), encoding="utf-8")

    try:
        key = _key(shards, prepare, limit)
        dataset = build_once(cache_dir, "shards", key, build, overwrite=overwrite)
    except ShardError as error:
        raise InputError(str(error)) from error
    quarantine = Quarantine()
    path = Path(dataset.cache_files[0]["filename"]).with_name(_QUARANTINE)
    for row, guid, reason, action, detail in json.loads(path.read_text(encoding="utf-8")):
        quarantine.add(row, guid, reason=reason, action=action, detail=detail)
    if not len(dataset):
        raise InputError(f"No row of {shards.shards[0].url} and its like is usable: {quarantine.summary()}.")
    return add_row_index(dataset), quarantine


def iterate_rows(shards: ShardSet) -> Iterator[NumberedRow]:
    """All rows in the shards' order.

    Raises:
        ShardError: a shard can't be read.
    """
    number = 0
    for shard in shards.shards:
        for _, read in iterate_shard(shard, shards.kind, stop=shard.rows):
            yield NumberedRow(number, shard.name, read())
            number += 1


def _iterate_prepared(
    shards: ShardSet, prepare: RowPreparer, limit: int | None, entries: list[Entry]
) -> Iterator[list[dict[str, Any]]]:
    rows = islice(iterate_rows(shards), limit)
    while taken := list(islice(rows, _ROWS_AT_A_TIME)):
        prepared, found = prepare(taken)
        entries += found
        yield prepared


def _key(shards: ShardSet, prepare: RowPreparer, limit: int | None) -> str:
    states = []
    for shard in shards.shards:
        with naming(shard):
            states.append(shard.open_files().ukey(shard.path))
    settings = [
        *(SCHEMA_VERSION, states, limit, list(prepare.labels), prepare.text_cleaning, prepare.on_bad_pair),
        *(prepare.picture.to_dict(), tokenizer_key(prepare.tokenizer), prepare.max_length, prepare.for_prediction),
        *(prepare.max_image_pixels, shards.shards[0].text_encoding),
        list(FEATURES),
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
