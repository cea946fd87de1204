"""CSV, TSV and JSON to Arrow: every cell as it stands, every fault with its line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from data_utils.console.screen import printable
from modeling.errors import InputError

# A cell of a line that begins with a quote, and isn't one quoted text.
_OPEN_QUOTE = re.compile(rb'(?<![^\t\r\n])"(?!(?:[^"\t\r\n]|"")*+"(?:[\t\r\n]|\Z))[^\t\r\n]*')
_OBJECTS = "a list of objects, [{...}, ...], or one object after another, each on a line of its own"
_MOST_KEYS = 1000  # of all objects of a file together; each becomes a column
_ITEM_END, _LINE_END = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*"), re.compile(r"[ \t\r]*(\n|\Z)[ \t\r\n]*")


def check_names(names: Sequence[str], place: str) -> None:
    """`InputError` for a column without a name, or with that of another."""
    seen = set[str]()
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            fault = f"is named {_show(name)}, as one before" if name else "has no name"
            raise InputError(
                f"{place}: column {number} {fault}; give it a name of its own, or leave it out (as pandas does its row "
                "numbers with index=False)."
            )
        seen.add(name)


def read_csv(content: bytes, place: str, delimiter: str) -> pa.Table:
    """A table of texts out of UTF-8 whose first line that isn't blank names the columns.

    `InputError`, with `place` and line, for rows of another length and quotes that aren't closed.
    """
    content = _quote_anew(content) if delimiter == "\t" else content
    reader = csv.reader(_open(content), delimiter=delimiter, strict=True)
    names, rows = list[str](), list[list[str]]()
    begun, limit = 1, csv.field_size_limit(len(content) + 1)
    try:
        for row in reader:
            if row and not names:
                names = _read_header(row, f"{place}, line {begun}", delimiter)
                if (table := _read_sound(content, row, delimiter)) is not None:
                    return table.rename_columns(names)
            elif row:
                rows.append(row)
                if len(row) != len(names):
                    raise InputError(
                        f"{place}, line {begun}: {len(row)} cells, from {_show(row[0])} on, where the header has "
                        f"{len(names)} ({printable(', '.join(names), 80)}); quote cells with separators or line ends."
                    )
            begun = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{place}, line {reader.line_num}: {error}; the quote that opens in line "
            f"{_find_open_quote(content, begun, delimiter)} isn't closed at its cell's end: write \"\" for one within."
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not names:
        raise InputError(f"{place} is empty; its first line names the columns, like id,text,image,label.")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names)


def _quote_anew(content: bytes) -> bytes:
    """TSV whose quotes are those of other programs' too, which write none around a cell.

    Where every line has as many cells as the first, whatever its quotes are, no cell goes over several lines: a quote
    that doesn't enclose its cell stands for itself.
    """
    counts = {line.count(b"\t") for line in content.splitlines() if line} if b'"' in content else {0}
    if len(counts) > 1 or 0 in counts:
        return content
    return _OPEN_QUOTE.sub(lambda cell: b'"%b"' % cell[0].replace(b'"', b'""'), content)


def _show(value: object) -> str:
    return printable(repr(value), 80)


def _open(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")


def _read_header(row: list[str], place: str, delimiter: str) -> list[str]:
    names = [name.strip() for name in row]
    sign = next((sign for sign in ",\t;|" if sign in names[0] and sign != delimiter), None)
    if len(names) == 1 and sign is not None:
        raise InputError(
            f"{place}: the one column {_show(names[0])} is parted by {sign!r}, not by {delimiter!r}; .csv has commas "
            "and .tsv has tabs: name the file so, or write it again."
        )
    check_names(names, place)
    return names


def _read_sound(content: bytes, header: list[str], delimiter: str) -> pa.Table | None:
    """What Arrow reads several times faster than Python; None where the two may differ, or something is wrong."""
    pieces = (b"\n" + content + b"\n").split(b'"') if b'"' in content else [b""]
    outside = pieces[::2]  # of quotes; an empty piece is the middle of a doubled one
    edges = {piece[:1] for piece in outside} | {piece[-1:] for piece in outside}
    if not len(pieces) % 2 or not edges <= {b"", b"\r", b"\n", delimiter.encode()}:
        return None
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=len(pieces) > 1)
    converting = pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
    try:
        return pa_csv.read_csv(pa.BufferReader(content), parse_options=parsing, convert_options=converting)
    except pa.ArrowException:
        return None


def _find_open_quote(content: bytes, begun: int, delimiter: str) -> int:
    """The line of the first quoted cell that isn't closed at its end, in the row that begins in line `begun`."""
    row = "".join(list(_open(content))[begun - 1 :])
    sound = re.compile(rf'(?:(?:"(?:[^"]|"")*+"|[^"{delimiter}][^{delimiter}]*+|){delimiter})*+').match(row)
    return begun + (sound[0].count("\n") if sound else 0)


def read_json(content: bytes, place: str) -> pa.Table:
    """A table of a list of objects, or of objects on lines of their own.

    A key that an object lacks is null in it. A column whose values are of several types is of texts.

    Raises:
        InputError: with `place` and line, for what is no such JSON, keys that stand twice, and halves of characters.
    """
    numbered, names = list(_iterate_objects(content.decode("utf-8"), place)), dict[str, None]()
    for line, row in numbered:
        names.update(dict.fromkeys(row))
        if len(names) > _MOST_KEYS:
            raise InputError(f"{place}, line {line}: over {_MOST_KEYS:,} different keys, of which each is a column.")
    if not numbered:
        raise InputError(f"{place} is empty; it takes {_OBJECTS}.")
    check_names(list(names), place)
    try:
        return pa.table({name: to_array([row.get(name) for _, row in numbered]) for name in names})
    except UnicodeEncodeError as error:
        line = next(line for line, row in numbered if repr(error.object) in repr(row))
        raise InputError(
            f"{place}, line {line}: {_show(error.object)} holds half of a character; write both, or none."
        ) from error


def _iterate_objects(text: str, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object, with its line."""
    decoder = json.JSONDecoder(object_pairs_hook=_to_dict)
    position = len(text) - len(text.lstrip("[ \t\r\n"))
    end_of_item = _ITEM_END if "[" in text[:position] else _LINE_END
    mark, line, counted = "", 1, 0
    try:
        while position < len(text) and mark != "]":
            line, counted = line + text.count("\n", counted, position), position
            value, end = decoder.raw_decode(text, position)
            if not isinstance(value, dict):
                raise json.JSONDecodeError(f"{_show(value)} is no object", text, position)
            yield line, value
            follows = end_of_item.match(text, end)
            if follows is None:
                raise json.JSONDecodeError("something else follows where the object ends", text, end)
            mark, position = follows[1], follows.end()
        if end_of_item is _ITEM_END and (mark != "]" or position < len(text)):
            raise json.JSONDecodeError("more follows" if mark == "]" else "the list isn't closed", text, position)
    except json.JSONDecodeError as error:
        place = f"{place}, line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: {error.msg}; what can be read is {_OBJECTS}.") from error
    except (ValueError, RecursionError) as error:  # keys that stand twice; numbers of thousands of digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{place}, line {line}: {printable(reason, 200)}; put it right, or take it out.") from error


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        for name, _ in pairs:
            if name not in row:
                raise ValueError(f"the key {name!r} stands twice in an object")
            del row[name]
    return row


def to_array(values: list[Any], *, from_pandas: bool = False) -> pa.Array:
    """A column; of values of several types as texts. `from_pandas`: nan stands for nothing, too."""
    try:
        return pa.array(values, from_pandas=from_pandas)
    except (pa.ArrowException, OverflowError):  # of several types, or numbers beyond 64 bits
        return pa.array([each if isinstance(each, str | None) else json.dumps(each) for each in values], pa.string())
