"""Files of rows, on disk or behind any URL of fsspec: found, and read once into one memory-mapped table."""

from __future__ import annotations

import codecs
import dataclasses
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features
from datasets import List as ListFeature
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from data_utils.prepare.cache import build_once
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import decode_text, find_encoding
from data_utils.system.bounded import MAX_DOCUMENT, MEBIBYTE
from data_utils.tables.table import Table
from data_utils.tables.text_formats import check_names, read_csv, read_json
from modeling.errors import InputError, reason_of
from modeling.file_kinds import PARQUET, name_kind, name_other_than_text

_BINARY, _DELIMITERS = (".parquet", ".arrow"), {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*_DELIMITERS, ".json", ".jsonl", ".ndjson", *_BINARY)
_MAX_TEXT = 2 * 2**30  # bytes of a text format, unpacked
_MAX_RATIO = 200  # of what a packed file unpacks to, beyond a document's bytes
_ROWS_AT_A_TIME = 1000
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # with which those of UTF-32 begin, too
_VERSION = 1  # of what is made of a file


class RowFile(NamedTuple):
    """A file; `url` is for messages, `state` changes with the content."""

    files: AbstractFileSystem
    path: str
    url: str
    suffix: str
    state: str


def find_files(flag: str, names: Sequence[str]) -> list[RowFile]:
    """The files that paths, globs and URLs name, in that order; `InputError` for what can't be read as rows."""
    found, name = [], ""
    try:
        for name in names:
            is_url = "://" in name and not os.path.exists(name)
            local = os.path.abspath(os.path.expanduser(name))
            files, path = url_to_fs(name) if is_url else (LocalFileSystem(), local)
            paths = [path]
            if set(path) & set("*?[") and not files.exists(path):
                paths = [each for each in sorted(files.glob(path)) if not each.rpartition("/")[2].startswith(".")]
            found += [_look_at(flag, files, path) for path in paths]
            if not paths:
                raise FileNotFoundError
    except FileNotFoundError as error:
        raise InputError(f"{flag} names {name}, but no such file is there; check the path, or the pattern.") from error
    except InputError:
        raise
    except Exception as error:  # of a file system, which raises what the library behind it does
        raise InputError(
            f"{flag} {name} can't be read ({reason_of(error)}); check it, and install the package for such URLs."
        ) from error
    if not found:
        raise InputError(f"{flag} names no files; name one, or leave it out.")
    return found


def _look_at(flag: str, files: AbstractFileSystem, path: str) -> RowFile:
    is_local = isinstance(files, LocalFileSystem)
    info, url = files.info(path), path if is_local else files.unstrip_protocol(path)
    if info["type"] != "file":
        raise InputError(f"{flag} {url} is {'a folder' if files.isdir(path) else 'no regular file'}; name a file.")
    name = (path if is_local else path.partition("?")[0]).lower()
    suffix = PurePosixPath(name.removesuffix(".gz")).suffix
    if suffix not in SUFFIXES or (name.endswith(".gz") and suffix in _BINARY):
        raise InputError(
            f"{flag} {url} has an ending that is not read; save it as one of {', '.join(SUFFIXES)} (all but the last "
            "two also packed, with .gz behind)."
        )
    state = [info["size"], info["mtime"]] if is_local else sorted((key, str(info[key])) for key in info)
    return RowFile(files, path, url, suffix, json.dumps(state))


def read_files(found: Sequence[RowFile], data: DataArguments) -> Table:
    """The rows of files of equal columns, below each other; what was read once is only opened."""
    name = found[0].url + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    settings = [data.text_encoding, [(file.url, file.state) for file in found]]
    dataset = keep(data, settings, partial(_build, found, name, data.text_encoding))
    return open_table(name, dataset, found[0].url.rpartition("/")[0])


def keep(data: DataArguments, settings: object, build: Callable[[Path], None]) -> Dataset:
    """`build_once` of a table that `settings` alone shape."""
    key = hashlib.sha256(json.dumps([_VERSION, settings]).encode()).hexdigest()
    return build_once(data.cache_path(), "table", key, build, overwrite=data.overwrite_cache)


def open_table(name: str, dataset: Dataset, folder: str) -> Table:
    """A table whose columns are not decoded."""
    dataset = dataset.with_format(None)
    dataset.info.features = Features({name: _undecode(feature) for name, feature in dataset.features.items()})
    return Table(name, dataset, folder)


def _undecode(feature: Any) -> Any:
    if isinstance(feature, ListFeature):
        return ListFeature(_undecode(feature.feature), length=feature.length)
    return dataclasses.replace(feature, decode=False) if hasattr(feature, "decode") else feature


def _build(found: Sequence[RowFile], name: str, encoding: str | None, folder: Path) -> None:
    """Write the rows of each file into a table of its own; `InputError` where they don't go together."""
    schemas: list[pa.Schema] = []
    for number, file in enumerate(found):
        schemas.append(write_tables(folder / f"{number:06}.arrow", _read_tables(file, encoding)))
        if odd := set(schemas[0].names) ^ set(schemas[-1].names):
            raise InputError(
                f"{file.url} has other columns than {found[0].url} (only one of them has {', '.join(sorted(odd))}); "
                "name files of equal columns."
            )
        first, other = (Features.from_arrow_schema(schema) for schema in (schemas[0], schemas[-1]))
        if any(isinstance(first[name], ClassLabel) and first[name] != other[name] for name in first):
            raise InputError(f"{file.url} declares other classes than {found[0].url}; write both with one ClassLabel.")
    try:
        pa.unify_schemas(schemas)
    except pa.ArrowException as error:
        raise InputError(f"The columns of {name} differ in type ({reason_of(error)}); write them alike.") from error


def write_tables(path: Path, tables: Iterable[pa.Table]) -> pa.Schema:
    """Write tables of one schema below each other, at least one; returns the schema."""
    tables = iter(tables)
    first = next(tables)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
    return first.schema


def _read_tables(file: RowFile, encoding: str | None) -> Iterator[pa.Table]:
    """The file's rows in tables of one schema; at least one, if without rows."""
    kind = None
    try:
        with file.files.open(file.path, "rb") as source:
            if file.suffix in _BINARY:
                kind = name_kind(source.read(1024))
                source.seek(0)
                yield from (_read_parquet if file.suffix == ".parquet" else _read_arrow)(source, file.url)
            else:
                content = _to_utf8(_read_text(file, source), file, encoding)
                delimiter = _DELIMITERS.get(file.suffix)
                yield read_csv(content, file.url, delimiter) if delimiter else read_json(content, file.url)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise every kind
        if kind not in (None, PARQUET):
            raise InputError(f"{file.url} is {kind}.") from error
        raise InputError(f"{file.url} can't be read ({reason_of(error)}); copy it again, or take it out.") from error


def _read_parquet(source: BinaryIO, place: str) -> Iterator[pa.Table]:
    """Of the footer only counts and the schema are asked for, as in `data_utils.shards.parquet`."""
    with pq.ParquetFile(source, pre_buffer=False) as file:
        footer = file.metadata
        rows = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        if footer.num_rows != rows:
            raise ValueError(f"{rows} rows, where its footer says {footer.num_rows}")
        yield from _to_tables(file.schema_arrow, file.iter_batches(_ROWS_AT_A_TIME), place)


def _read_arrow(source: BinaryIO, place: str) -> Iterator[pa.Table]:
    try:
        reader = batches = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        reader = pa.ipc.open_file(source)
        batches = map(reader.get_batch, range(reader.num_record_batches))
    yield from _to_tables(reader.schema, batches, place)


def _to_tables(schema: pa.Schema, batches: Iterable[pa.RecordBatch], place: str) -> Iterator[pa.Table]:
    """With the types that `datasets` has for these; `InputError` for columns without a name, or of the same."""
    check_names(schema.names, place)
    plain = Features.from_arrow_schema(schema).arrow_schema
    yield plain.empty_table()
    for batch in batches:
        batch.validate(full=True)  # what is damaged would end the process where it is read
        yield pa.Table.from_batches([batch]).cast(plain)


def _read_text(file: RowFile, source: BinaryIO) -> bytes:
    """All of a text, unpacked; `InputError` where that is too much, or surely no text."""
    limit = _MAX_TEXT
    if file.path.lower().endswith(".gz"):
        limit = min(limit, max(MAX_DOCUMENT, _MAX_RATIO * source.seek(0, os.SEEK_END)))
        source.seek(0)
        source = cast(BinaryIO, gzip.GzipFile(fileobj=source))
    pieces, length = [], 0
    while piece := source.read(MEBIBYTE):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            raise InputError(f"{file.url} holds over {limit:,} bytes of text; save it as .parquet, or in parts.")
    content = b"".join(pieces)
    kind = name_other_than_text(content) or name_kind(content)
    if kind and not (kind.startswith("a JSON") and file.suffix not in _DELIMITERS):
        raise InputError(f"{file.url} is {kind}.")
    return content


def _to_utf8(content: bytes, file: RowFile, encoding: str | None) -> bytes:
    """The text in UTF-8: of lines that are no UTF-8 each in its encoding, so that one of them changes no other."""
    is_shifted = b"\x1b" in content and b"\x1b$" in content  # one byte is found many times faster than two
    if is_shifted or b"\0" in content or content.startswith(_WIDE_MARKS):
        content = decode_text(content, encoding)[0].encode()
    else:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            encoding = encoding or find_encoding(line for line in content.splitlines() if not line.isascii())
        if encoding:
            content = "".join(decode_text(line, encoding)[0] for line in content.splitlines(keepends=True)).encode()
    if (nul := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise InputError(f"{file.url}, line {line}: a NUL, which no text holds; copy the file again, or save it anew.")
    return content.removeprefix(codecs.BOM_UTF8)
