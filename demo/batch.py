"""A CSV file in, and one out that has an answer for each of its rows, in their order."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from contextlib import suppress

from data_utils.console.screen import printable
from data_utils.sources.encodings import decode_text
from data_utils.system.files import encode_csv
from data_utils.tables.text_formats import read_csv
from demo.answers import Pair, ServedRun, describe_fault
from demo.arguments import DemoArguments
from evaluation.tasks.table_output import PREDICTION
from modeling.errors import InputError

TEXT, IMAGE, FAULT = "text", "image", "fault"
_ROWS = 16  # asked at a time: a visitor with one pair waits no longer than these take
# A cell that begins so is computed by spreadsheets, the wide ones by those of East Asia.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NO_PICTURE = b"no base64"  # which no picture's file begins with


def answer_csv(run: ServedRun, content: bytes, arguments: DemoArguments) -> bytes:
    """The answers to a CSV file with a column `text`, or `image`, or both.

    A picture stands in its cell, in base64: no file is opened and nothing is fetched that a cell names. The column is
    left out of the answers. Other cells that a spreadsheet would compute get an apostrophe before them.

    Raises:
        InputError: the content is no such CSV, or has more rows, or longer texts, than the arguments allow.
    """
    table = read_csv(decode_text(content)[0].encode("utf-8", "replace"), "The CSV file", ",")
    added = [PREDICTION, *(f"prob_{name}" for name in run.label_names), "confidence", "answered", FAULT]
    if taken := [name for name in added if name in table.column_names]:
        raise InputError(f"The CSV file has a column {printable(taken[0])!r} already; rename it.")
    if not {TEXT, IMAGE} & set(table.column_names):
        raise InputError(f"The CSV file has no column {TEXT!r} and no column {IMAGE!r}; name one of its columns so.")
    if not 0 < len(table) <= arguments.max_rows:
        raise InputError(f"The CSV file has {len(table):,} rows; 1 to {arguments.max_rows:,} are answered at a time.")
    nothing = [None] * len(table)
    texts, cells = (table.column(name).to_pylist() if name in table.column_names else nothing for name in (TEXT, IMAGE))
    for number, text in enumerate(texts, start=1):
        check_text(text or "", arguments, f"The text of row {number}")
    rows = list(_answer(run, [Pair(*pair) for pair in zip(texts, map(_decode, cells), strict=True)]))
    kept = [name for name in table.column_names if name != IMAGE]
    given = zip(*(table.column(name).to_pylist() for name in kept), strict=True) if kept else [()] * len(rows)
    lines = [[*kept, *rows[0]], *([*cells, *row.values()] for cells, row in zip(given, rows, strict=True))]
    return encode_csv([disarm(cell) for cell in line] for line in lines)


def check_text(text: str, arguments: DemoArguments, what: str) -> None:
    """`InputError` for a text that is too long."""
    if len(text) > arguments.max_text_length:
        raise InputError(f"{what} has {len(text):,} characters; at most {arguments.max_text_length:,} are read.")


def _answer(run: ServedRun, pairs: Sequence[Pair]) -> Iterable[dict[str, str]]:
    for start in range(0, len(pairs), _ROWS):
        answers = run.ask(pairs[start : start + _ROWS])
        for number, faults in enumerate(answers.faults):
            said = run.to_dict(answers, number)
            row = {PREDICTION: said["answer"]}
            row |= {f"prob_{name}": f"{value:.6f}" for name, value in said.get("probabilities", {}).items()}
            if "confidence" in said:
                row |= {"confidence": f"{said['confidence']:.6f}", "answered": "yes" if said["answered"] else "no"}
            yield row | {FAULT: "; ".join(describe_fault(fault) for fault in faults)}


def _decode(cell: str | None) -> bytes | None:
    if not cell or not cell.strip():
        return None
    with suppress(binascii.Error, ValueError):
        return base64.b64decode("".join(cell.rpartition(",")[2].split()), validate=True)
    return _NO_PICTURE


def disarm(cell: object) -> str:
    """A cell as text that no spreadsheet takes for a formula; numbers stay what they are."""
    text = "" if cell is None else str(cell)
    if not text.startswith(_FORMULA):
        return text
    with suppress(ValueError):
        float(text)
        return text
    return f"'{text}"
