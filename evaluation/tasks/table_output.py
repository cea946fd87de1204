"""Answers beside the columns of the table that was asked: CSV, JSON lines or Parquet, by the output's name."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray

from data_utils.console.screen import printable
from data_utils.system.files import encode_csv
from modeling.errors import InputError, reason_of

logger = logging.getLogger(__name__)
PREDICTION = "prediction"
JSON, PARQUET = (".jsonl", ".ndjson"), ".parquet"
SUFFIXES = (".csv", *JSON, PARQUET)


def check_output(path: Path, asked: Dataset, added: Sequence[str]) -> None:
    """`InputError` for an output that can't be written of the table that is asked, with the columns `added`."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"Got --output {path}; the answers to a table are written as {', '.join(SUFFIXES)}.")
    if taken := [name for name in added if name in asked.column_names]:
        raise InputError(
            f"The table has a column {printable(taken[0])!r} already, which the answers would replace; rename it."
        )
    if path.suffix.lower() == PARQUET:
        try:
            pq.ParquetWriter(io.BytesIO(), asked.features.arrow_schema).close()
        except pa.ArrowException as error:  # Parquet has not all that Arrow has
            raise InputError(
                f"Got --output {path}, which can't hold the table ({reason_of(error)}); take .csv."
            ) from error


def encode_answers(path: Path, asked: Dataset, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> bytes:
    """The file's content: the asked columns and those of the answers, in the rows' order.

    Bytes, as of pictures, go into Parquet alone.
    """
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        buffer = io.BytesIO()
        for name, values in columns.items():
            asked = asked.add_column(name, pa.array(values).to_pylist())
        asked.to_parquet(buffer)
        return buffer.getvalue()
    binary = [name for name in asked.column_names if _holds_bytes(asked.data.schema.field(name).type)]
    if binary:
        logger.info("%s can't hold bytes, as the columns %s do; .parquet can.", path.suffix, ", ".join(binary))
    cells = {name: asked[name][:] for name in asked.column_names if name not in binary}
    for name in cells:
        feature = asked.features[name]
        if isinstance(feature, ClassLabel):  # by its name, as in the answers
            cells[name] = [None if cell is None or cell < 0 else feature.names[cell] for cell in cells[name]]
    cells |= {name: pa.array(values).to_pylist() for name, values in columns.items()}
    plain = {name: [_to_plain(cell) for cell in column] for name, column in cells.items()}
    rows = zip(*plain.values(), strict=True)
    if suffix == ".csv":
        return encode_csv([list(plain), *([_to_cell(cell) for cell in row] for row in rows)])
    return "".join(f"{_to_json(dict(zip(plain, row, strict=True)))}\n" for row in rows).encode()


def _to_plain(cell: Any) -> Any:
    """As JSON has it: dates and the like as texts, and null for numbers that are none."""
    if isinstance(cell, dict):
        return {name: _to_plain(each) for name, each in cell.items()}
    if isinstance(cell, list):
        return [_to_plain(each) for each in cell]
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    return cell if isinstance(cell, str | int | float | None) else str(cell)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _to_cell(value: Any) -> Any:
    return _to_json(value) if isinstance(value, list | dict) else value


def read_predictions(path: Path, count: int) -> list[str]:
    """The first answers of such a file; ValueError, OSError or `csv.Error` where it is none."""
    if path.suffix.lower() == PARQUET:
        if PREDICTION not in (file := pq.ParquetFile(path)).schema_arrow.names:
            return []
        first = next(file.iter_batches(count, columns=[PREDICTION]), None)
        return [] if first is None else [str(value) for value in first.column(0).to_pylist()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file) if path.suffix.lower() == ".csv" else map(json.loads, file)
        return [str(row.get(PREDICTION)) for row in islice(rows, count) if isinstance(row, dict)]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
