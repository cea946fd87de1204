"""Trainer's flags, read off the source of the installed transformers, as its import takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_utils.console.command_line import Flag

# Annotations of these names alone are known here; a value of any other type stays a word, which Trainer reads.
_KNOWN: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
_KNOWN |= {"Any": Any, "Literal": Literal}


def read_trainer_flags(without: Collection[str]) -> list[Flag]:
    """The flags of `transformers.TrainingArguments` but for those named in `without`, in their order."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The package transformers is not installed; pip install -r requirements.txt.")
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text("utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    flags = (_read_flag(node) for node in body if isinstance(node, ast.AnnAssign))
    return [flag for flag in flags if flag is not None and flag.name not in without]


def _read_flag(node: ast.AnnAssign) -> Flag | None:
    """A flag of `name: annotation = field(default=..., metadata=...)`; None of what the constructor doesn't take."""
    call = node.value
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "field"):
        return None
    values = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    if "init" in values:
        return None
    metadata = values.get("metadata") or {}
    kind = _read_kind(node.annotation)
    if metadata.get("const") is True and kind != bool | None:
        kind = str | bool  # it may stand without a value
    return Flag(ast.unparse(node.target), kind, values.get("default"), metadata.get("help", ""))


def _literal(node: ast.expr) -> Any:
    """The value of a constant; None for what only running the code would tell."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _read_kind(annotation: ast.expr) -> Any:
    """The type that an annotation writes; a word where it has names or forms that aren't known here."""
    try:
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, _KNOWN)
    except (NameError, AttributeError, TypeError):
        return str
