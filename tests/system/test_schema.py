"""Types of what a file holds: right ones pass, each wrong one is told with its place and what belongs there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from data_utils.system.schema import Within, check_types, read_json, read_yaml
from modeling.errors import InputError


class Part(TypedDict):
    size: Annotated[int, Within(1, 100)]
    kind: NotRequired[Literal["a", "b"]]


@dataclass
class Whole:
    name: str
    parts: list[Part] = field(default_factory=list)
    scale: float = None
    counts: dict[str, int] | None = None
    range: Annotated[list[float], Within(2, 2)] = field(default_factory=lambda: [0.0, 1.0])
    inner: Part | None = None
    anything: Any = None


GOOD = {"name": "x", "parts": [{"size": 1, "kind": "a"}, {"size": 100, "more": 5}], "scale": 1, "counts": {"a": 2}}


@pytest.mark.parametrize(
    "change", [{}, {"scale": None}, {"scale": 0.5}, {"counts": None}, {"range": (1, 2)}, {"anything": [date.min]}]
)
def test_right_types_pass(change: dict[str, Any]) -> None:
    check_types(GOOD | change, Whole, "it")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": None}, "name: None, where a text belongs"),
        ({"name": date(2020, 1, 2)}, "name: datetime.date"),
        ({"parts": {}}, "parts: a map, where a list belongs"),
        ({"parts": [{"size": 1}, {}]}, "parts.1: no size, where a whole number from 1 to 100 belongs"),
        ({"parts": [{"size": 0}]}, "parts.0.size: 0, where a whole number from 1 to 100"),
        ({"parts": [{"size": True}]}, "parts.0.size: True"),
        ({"parts": [{"size": 1.0}]}, "parts.0.size: 1.0"),
        ({"parts": [{"size": 1, "kind": "c"}]}, "parts.0.kind: 'c', where one of a, b belongs"),
        ({"scale": math.nan}, "scale: nan, where a number"),
        ({"scale": -math.inf}, "scale: -inf"),
        ({"scale": 10**400}, "scale: 1000"),
        ({"scale": "1"}, "scale: '1', where a number or nothing belongs"),
        ({"counts": {"a": "2"}}, "counts.a: '2', where a whole number belongs"),
        ({"counts": {3: 4}}, "counts.3: 3, where a text belongs"),
        ({"inner": {}}, "inner: no size, where a whole number"),
        ({"inner": 5}, "inner: 5, where a map or nothing belongs"),
        ({"range": [1.0]}, "range: a list, where a list of length from 2 to 2 belongs"),
        ({"other": 1}, "unknown key 'other', as of another version"),
    ],
)
def test_wrong_types_are_told_with_their_place(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as error:
        check_types(GOOD | change, Whole, "config.yaml", remedy="mend it")
    assert str(error.value).startswith("config.yaml has ")
    assert fault in str(error.value)
    assert str(error.value).endswith("; mend it.")


def test_long_values_are_cut_in_the_message() -> None:
    with pytest.raises(InputError) as error:
        check_types(GOOD | {"parts": "x" * 100_000}, Whole, "it")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("read", [read_json, read_yaml])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ', b"\xff\xfe", b'{"name": 1}', b"5"])
def test_damaged_files_are_told_in_one_sentence(tmp_path: Path, read: Any, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}/file .*; mend it"):
        read(tmp_path / "file", Whole, remedy="mend it")


def test_missing_file_is_left_to_the_caller_and_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
