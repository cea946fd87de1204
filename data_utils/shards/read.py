"""Rows out of one shard, Parquet or WebDataset tar, the pictures still as their files' bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from data_utils.shards import parquet, tar
from data_utils.shards.shard_file import Row, Shard, ShardError, wrap_read_errors
from data_utils.shards.shard_set import ShardSet, find_shards
from data_utils.sources.encodings import decode_text, find_encoding
from modeling.errors import InputError

_SHOWN = 20  # names of columns or endings
_FORMATS = {"parquet": parquet, "webdataset": tar}
_NEEDED = {
    "parquet": "the columns image (struct of bytes and path, or bytes), text and label (a name or a class number)",
    "webdataset": "of each row, which is files of one name up to the first dot, a .jpg (or .png, .webp), a .txt, and a "
    ".cls or a .json with label in it",
}


def iterate_shard(shard: Shard, kind: str, *, start: int = 0, stop: int | None = None) -> Iterator[Row]:
    """Number of each row from `start` (0 is the shard's first) to before `stop`, and a function that reads it.

    A row that isn't read costs next to nothing. It can be read once, until the iteration goes on.

    Raises:
        ShardError: the file can't be read, is damaged, or has other rows than its manifest says.
    """
    count = start
    for number, read in _FORMATS[kind].iterate_rows(shard, start):
        if stop is not None and number >= stop:
            return
        yield number, wrap_read_errors(shard)(read)
        count = number + 1
    if stop is not None and count < stop:
        raise ShardError(f"{shard.url} ends after {count} rows, of which {shard.rows} were announced; copy it again.")


def open_shards(place: str, part: str, *, labelled: bool, remedy: str) -> ShardSet:
    """The shards of a part, which have the columns that are needed; `InputError` where there are none."""
    shards = find_shards(place, part)
    if shards is None:
        raise InputError(f"There are no {part}-*.parquet or {part}-*.tar in {place}; {remedy}.")
    check_columns(shards, labelled=labelled)
    return shards


def check_columns(shards: ShardSet, *, labelled: bool) -> None:
    """Refuse shards that lack a column, by a look at the first rows that there are.

    Raises:
        InputError: it names what there is and what is needed.
    """
    try:
        looks = ((shard, *_FORMATS[shards.kind].find_columns(shard)) for shard in shards.shards)
        shard, columns, names = next((look for look in looks if look[2]), (shards.shards[0], set(), {"nothing"}))
    except ShardError as error:
        raise InputError(str(error)) from error
    if not {"image", "text", *(["label"] if labelled else [])} <= columns:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        needed = _NEEDED[shards.kind] + ("" if labelled else " (label may be absent)")
        raise InputError(f"{shard.url} holds {', '.join(sorted(names)[:_SHOWN])}{more}; needed are {needed}.")


def read_texts(shards: ShardSet, *, limit: int) -> list[str]:
    """The first `limit` texts in the shards' order; pictures are passed over."""
    texts, encoding = islice(_iterate_texts(shards), limit), shards.text_encoding
    return [decode_text(text, encoding)[0] if isinstance(text, bytes) else text for text in texts]


def find_text_encoding(shards: ShardSet, *, limit: int) -> str | None:
    """The encoding of texts that are bytes, and whose own isn't certain, by the first `limit` texts together."""
    return find_encoding(text for text in islice(_iterate_texts(shards), limit) if isinstance(text, bytes))


def _iterate_texts(shards: ShardSet) -> Iterator[str | bytes]:
    return chain.from_iterable(map(_FORMATS[shards.kind].iterate_texts, shards.shards))
