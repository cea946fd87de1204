"""Shards to one Arrow file of prepared rows, for a part that is met again and again, like the one for validation."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from data_utils.prepare.cache import SCHEMA_VERSION, build_once
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pairs import add_row_index
from data_utils.prepare.tokens import tokenizer_key
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import ShardError, wrap_read_errors
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import Quarantine
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

    Shards written by this program hold their rows in a random order, so that the first ones do for all.

    Returns:
        Memory-mapped rows with the columns of the collator and row_index, and what was wrong with others.

    Raises:
        InputError: a shard is damaged, no row is usable, or the cache can't be written.
    """

    def build(folder: Path) -> None:
        rows, entries = itertools.islice(_iterate_rows(shards), limit), []
        with pa.ipc.new_stream(str(folder / "part.arrow"), FEATURES.arrow_schema) as writer:
            while taken := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
                prepared, found = prepare(taken)
                entries += found
                kept = [row for row in prepared if row["label"] != NO_LABEL_ID]
                columns = {name: [row[name] for row in kept] for name in FEATURES}
                writer.write_table(pa.table(columns, schema=FEATURES.arrow_schema))
        (folder / _QUARANTINE).write_text(json.dumps([astuple(entry) for entry in entries]), encoding="utf-8")

    try:
        dataset = build_once(cache_dir, "shards", _key(shards, prepare, limit), build, overwrite=overwrite)
    except ShardError as error:
        raise InputError(str(error)) from error
    quarantine = Quarantine()
    path = Path(dataset.cache_files[0]["filename"]).with_name(_QUARANTINE)
    for row, guid, reason, action, detail in json.loads(path.read_text(encoding="utf-8")):
        quarantine.add(row, guid, reason=reason, action=action, detail=detail)
    if not len(dataset):
        raise InputError(f"No row of {shards.shards[0].url} and its like is usable: {quarantine.summary()}.")
    return add_row_index(dataset), quarantine


def _iterate_rows(shards: ShardSet) -> Iterator[NumberedRow]:
    numbers = itertools.count()
    for shard in shards.shards:
        for _, read in iterate_shard(shard, shards.kind, stop=shard.rows):
            yield NumberedRow(next(numbers), shard.name, read())


def _key(shards: ShardSet, prepare: RowPreparer, limit: int | None) -> str:
    states = []
    for shard in shards.shards:
        with wrap_read_errors(shard):
            states.append(shard.open_files().ukey(shard.path))
    settings = [
        *(SCHEMA_VERSION, states, limit, list(prepare.labels), prepare.text_cleaning, prepare.on_bad_pair),
        *(prepare.picture.to_dict(), tokenizer_key(prepare.tokenizer), prepare.max_length, prepare.for_prediction),
        *(prepare.max_image_pixels, shards.text_encoding),
        list(FEATURES),
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
