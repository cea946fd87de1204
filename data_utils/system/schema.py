"""Whether what a file holds has the types that it should: one check for all files, read off type hints."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from data_utils.system.bounded import MAX_DOCUMENT, parse_json, parse_yaml, read_bounded
from modeling.errors import InputError

MAX_SHOWN = 80  # characters of a wrong value
COPY_AGAIN = "copy it again from where it was written"
_PLAIN: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "nothing",
}


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of the length of a text, list or map, for `Annotated[int, Within(1, 9)]`."""

    low: float
    high: float


class _FaultError(Exception):
    """What is wrong, and at the end of which keys and numbers."""

    def __init__(self, fault: str, place: tuple[str, ...]) -> None:
        super().__init__(fault)
        self.place = place


def read_json(path: Path, kind: Any = Any, *, remedy: str = COPY_AGAIN) -> Any:
    """What a JSON file holds, of the types that `kind` says; see `check_types`.

    `InputError`, with the remedy, where it can't be read or is no JSON; a missing file is a FileNotFoundError.
    """
    return _read(path, parse_json, "JSON", kind, remedy)


def read_yaml(path: Path, kind: Any = Any, *, remedy: str = COPY_AGAIN) -> Any:
    """`read_json` of a YAML file."""
    return _read(path, lambda source: parse_yaml(source.decode("utf-8")), "YAML", kind, remedy)


def _read(path: Path, parse: Any, language: str, kind: Any, remedy: str) -> Any:
    try:
        content = parse(read_bounded(path, MAX_DOCUMENT))
    except (InputError, FileNotFoundError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except ValueError as error:
        raise InputError(f"{path} is no {language} ({' '.join(str(error).split())}); {remedy}.") from error
    check_types(content, kind, str(path), remedy=remedy)
    return content


def check_types(value: Any, kind: Any, name: str, *, remedy: str = COPY_AGAIN) -> None:
    """`InputError` for a value out of JSON or YAML of another type, out of bounds, or with a number that isn't finite.

    Args:
        value: of plain types.
        kind: a type hint of plain types, lists, tuples, maps, Literal, Union, `Annotated[..., Within(...)]`; a
            TypedDict, which may have further keys; a dataclass, whose fields are the keys, and no others.
        name: whose value it is, for the message.
        remedy: what to do about a fault.
    """
    try:
        _check(value, kind, ())
    except _FaultError as error:
        place = f"{'.'.join(error.place)}: " if error.place else ""
        raise InputError(f"{name} has {place}{error}; {remedy}.") from error


def _check(value: Any, kind: Any, place: tuple[str, ...]) -> None:
    """`_FaultError` unless the value at `place` is of the kind."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if origin is NotRequired:
        _check(value, args[0], place)
    elif origin is Annotated:
        _check(value, args[0], place)
        size = len(value) if isinstance(value, str | Sequence | Mapping) else value
        _require(value is None or args[1].low <= size <= args[1].high, value, kind, place)
    elif origin in (Union, types.UnionType):
        _check_union(value, kind, place)
    elif origin is Literal:
        _require(any(type(value) is type(each) and value == each for each in args), value, kind, place)
    elif _has_fields(kind):
        _check_fields(value, kind, place)
    elif _is(kind, dict, Mapping):
        _require(isinstance(value, dict), value, kind, place)
        for key, item in value.items():
            for part, part_kind in zip((key, item), args, strict=False):
                _check(part, part_kind, (*place, str(key)[:MAX_SHOWN]))
    elif _is(kind, list, tuple, Sequence):
        _require(isinstance(value, list | tuple), value, kind, place)
        item_kind = (args or (Any,))[0]
        if item_kind not in _PLAIN or not all(_is_plain(item, item_kind) for item in value):  # or a million take long
            for number, item in enumerate(value):
                _check(item, item_kind, (*place, str(number)))
    else:
        _require(_is_plain(value, type(None) if kind is None else kind), value, kind, place)


def _is_plain(value: Any, kind: Any) -> bool:
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (abs(value) < 2**1000 if isinstance(value, int) else math.isfinite(value))
    if kind is str:  # without halves of characters, which no file system and no terminal takes
        is_whole = type(value) is str and (value.isascii() or value.encode(errors="replace").decode() == value)
        return is_whole and "\0" not in value
    return type(value) is kind


def _check_union(value: Any, kind: Any, place: tuple[str, ...]) -> None:
    """Fits any; of what fits none, the fault is told of the one that has its outer form."""
    maps = [each for each in get_args(kind) if _has_fields(each)] if isinstance(value, dict) else []
    faults = []
    for each in maps or get_args(kind):
        try:
            return _check(value, each, place)
        except _FaultError as error:
            faults.append(error)
    deepest = max(faults, key=lambda fault: len(fault.place))
    _require(deepest.place != place or bool(maps), value, kind, place)
    raise deepest


def _check_fields(value: Any, kind: Any, place: tuple[str, ...]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        # Its own __required_keys__ knows nothing of NotRequired where annotations are texts.
        required = {name for name, hint in hints.items() if kind.__total__ and get_origin(hint) is not NotRequired}
    else:
        hints = {each.name: hints[each.name] for each in fields(kind)}
        required = {each.name for each in fields(kind) if each.default is each.default_factory is MISSING}
        hints |= {each.name: hints[each.name] | None for each in fields(kind) if each.default is None}
    _require(isinstance(value, dict), value, kind, place)
    for name in sorted(required - value.keys()):
        raise _FaultError(f"no {name}, where {_describe(hints[name])} belongs", place)
    for name in sorted(map(str, value.keys() - hints.keys())) if is_dataclass(kind) else ():
        raise _FaultError(f"the unknown key {name[:MAX_SHOWN]!r}, as of another version of this program", place)
    for name, hint in hints.items():
        if name in value:
            _check(value[name], hint, (*place, name))


def _require(fits: bool, value: Any, kind: Any, place: tuple[str, ...]) -> None:
    if not fits:
        shown = "a map" if isinstance(value, dict) else "a list" if isinstance(value, list) else None
        shown = shown or repr(value[:MAX_SHOWN] if isinstance(value, str) else value)[: MAX_SHOWN + 2]
        raise _FaultError(f"{shown}, where {_describe(kind)} belongs", place)


def _describe(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        counted = "" if args[0] in (int, float) else "of length "
        return f"{_describe(args[0])} {counted}from {args[1].low:,} to {args[1].high:,}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(each) for each in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    if _has_fields(kind) or _is(kind, dict, Mapping):
        return "a map"
    return "a list" if _is(kind, list, tuple, Sequence) else _PLAIN.get(kind, "another value")


def _has_fields(kind: Any) -> bool:
    return is_typeddict(kind) or is_dataclass(kind)


def _is(kind: Any, *families: Any) -> bool:
    return (get_origin(kind) or kind) in families
