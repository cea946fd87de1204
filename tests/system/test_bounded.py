"""Reading what may have been made to do harm: each fault is one ValueError, at once and within memory."""

from __future__ import annotations

import os

import pytest

from data_utils.system.bounded import parse_json, parse_yaml, read_bounded
from modeling.errors import InputError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.parametrize("source", ["[" * 100_000, "9" * 5_000, "{", b"\xff\xfe\xff"])
def test_hostile_json_is_a_value_error(source):
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(source)


@pytest.mark.parametrize(
    "source", ["[" * 100_000, "9" * 5_000, LAUGHS, "&a [*a]", "a: &a {b: *a}", "a: 1\na: 2", "!!python/name:os.system"]
)
def test_hostile_yaml_is_a_value_error(source):
    with pytest.raises(ValueError, match=r"\w"):
        parse_yaml(source)


def test_anchors_and_merges_are_read():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


def test_only_regular_files_up_to_a_limit_are_read(tmp_path):
    path, pipe, huge = tmp_path / "file", tmp_path / "pipe", tmp_path / "huge"
    path.write_bytes(b"12345")
    os.mkfifo(pipe)
    huge.touch()
    os.truncate(huge, 200 * 2**30)
    assert read_bounded(path, 5) == b"12345"
    for source, limit in ((path, 4), (pipe, 9), (huge, 9), ("/dev/zero", 9)):
        with pytest.raises(InputError, match=str(source)):
            read_bounded(source, limit)
    with pytest.raises(OSError, match=str(tmp_path)):
        read_bounded(tmp_path, 9)
