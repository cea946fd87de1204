"""Trainer's flags, read off the source of the installed transformers, as its import takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_utils.console.command_line import Flag

# Annotations of these names alone are known here; a value of any other type stays a word, which Trainer reads.
_KNOWN = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
_KNOWN |= {"Any": Any, "Literal": Literal}


def read_trainer_flags(without: Collection[str]) -> list[Flag]:
    """The flags of `transformers.TrainingArguments` but for those named in `without`, in their order.

    Raises:
        ModuleNotFoundError: transformers isn't installed.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The package transformers is not installed; pip install -r requirements.txt.")
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text("utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and _is_field(node)]
    return [flag for flag in map(_read_flag, fields) if flag.name not in without]


def _is_field(node: ast.AnnAssign) -> bool:
    """Whether a value is set by a call of `field` which the constructor takes."""
    call = node.value
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "field":
        return False
    return all(keyword.arg != "init" for keyword in call.keywords)


def _read_flag(node: ast.AnnAssign) -> Flag:
    values = {keyword.arg: _literal(keyword.value) for keyword in node.value.keywords}
    metadata = values.get("metadata") or {}
    kind = _read_kind(node.annotation)
    if metadata.get("const") is True and kind != bool | None:
        kind = str | bool  # it may stand without a value
    return Flag(node.target.id, kind, values.get("default"), metadata.get("help", ""))


def _literal(node: ast.expr) -> Any:
    """The value of a constant; None for what only running the code would tell."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _read_kind(annotation: ast.expr) -> Any:
    try:
        return _type_of(annotation)
    except (KeyError, TypeError):
        return str


def _type_of(annotation: ast.expr) -> Any:
    """The type that an annotation writes; KeyError for names and forms that aren't known here."""
    match annotation:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _KNOWN[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type_of(left) | _type_of(right)
        case ast.Subscript(value=outer, slice=ast.Tuple(elts=inner)):
            return _type_of(outer)[tuple(map(_type_of, inner))]
        case ast.Subscript(value=outer, slice=inner):
            return _type_of(outer)[_type_of(inner)]
    raise KeyError(ast.unparse(annotation))
