"""Reading files that may have been damaged, or made to do harm: bounded in size, depth and kind."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from modeling.errors import InputError

MEBIBYTE = 2**20
MAX_DOCUMENT = 64 * MEBIBYTE  # of a JSON or YAML file; a recipe has kilobytes, the split of a million pairs 20 MiB
MAX_NODES = 1_000_000  # of a YAML file with its aliases written out


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole content of a regular file (also behind a link); `InputError` for a pipe, a device, or more bytes."""
    # Without O_NONBLOCK the opening of a pipe waits for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file; name a file that holds its content.")
        content = b"" if status.st_size > limit else file.read(limit + 1)
    if status.st_size > limit or len(content) > limit:
        raise InputError(
            f"{path} has {max(status.st_size, len(content)):,} bytes; at most {limit:,} are read from such a file."
        )
    return content


def parse_json(source: str | bytes) -> Any:
    """`json.loads` whose every fault is a ValueError: also nesting too deep, and numbers too long, for Python."""
    try:
        return json.loads(source)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(source: str | bytes) -> Any:
    """YAML's own types, without doubled keys; every fault is a ValueError, with the line where there is one."""
    try:
        return yaml.load(source, Loader=_Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, ArithmeticError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """Refuses what YAML's safe loader takes: keys that stand twice, cycles, and aliases that stand for millions."""

    # While nodes are composed, as merges (<<) aren't resolved yet: a merged key may stand beside one that replaces it.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                raise ValueError(f"{key.value} stands twice, in lines {lines[name]} and {line}; leave one of them out")
            lines[name] = line
        return node

    def compose_document(self) -> yaml.Node | None:
        root = super().compose_document()
        if root is not None and _count_nodes(root, {}) > MAX_NODES:
            raise ValueError(f"its aliases stand for more than {MAX_NODES:,} values")
        return root


def _count_nodes(node: yaml.Node, counts: dict[int, int | None]) -> int:
    """Nodes below and with `node`, each as often as aliases repeat it; `counts` holds None for those being counted."""
    if id(node) not in counts:
        counts[id(node)] = None
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        counts[id(node)] = 1 + sum(_count_nodes(part, counts) for part in parts)
    count = counts[id(node)]
    if count is None:
        raise ValueError(f"the value in line {node.start_mark.line + 1} contains itself")
    return count
