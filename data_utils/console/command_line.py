"""A command line of dataclasses, whose faults are told in one sentence; nothing heavy is imported for it."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from data_utils.console.flag_hints import ANSWERS, SYNONYMS
from modeling.errors import InputError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_FLAG = re.compile("--|-[A-Za-z]")  # -1 is a number
_SWITCH_WORDS = dict.fromkeys(("yes", "true", "on", "t", "y", "1"), True)
_SWITCH_WORDS |= dict.fromkeys(("no", "false", "off", "f", "n", "0"), False)
_PLACEHOLDERS: dict[type, str] = {int: "N", float: "X"}
_LONGEST_MAP = 100_000  # characters of JSON in a flag


class Flag(NamedTuple):
    """One flag."""

    name: str  # without dashes in front
    kind: Any  # the type of its value; `list[...]` takes several
    default: Any  # MISSING where it has to be given
    help: str


def flag(default: Any, help: str) -> Any:
    """A field of a dataclass of flags; of a list each object gets its own."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def list_flags(group: type) -> list[Flag]:
    """The flags of a dataclass: its own fields, in their order."""
    kinds, flags = get_type_hints(group), []
    for field in dataclasses.fields(group):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        flags.append(Flag(field.name, kinds[field.name], default, field.metadata["help"]))
    return flags


class FlagParser(argparse.ArgumentParser):
    """Raises an `InputError` where argparse would exit by itself, and names the flag that was meant.

    `groups` are dataclasses, each with the title of its flags in --help as `group`, where it isn't "flags". Dashes in a
    flag stand for underscores. With bare_switches a switch takes no yes or no, which a word behind it would be read as.
    """

    def __init__(self, *groups: type, bare_switches: bool = False, **options: Any) -> None:
        spec = sys.modules["__main__"].__spec__  # of what was started by python -m
        if spec is not None:
            options.setdefault("prog", f"python -m {spec.name.removesuffix('.__main__')}")
        super().__init__(argument_default=argparse.SUPPRESS, allow_abbrev=False, **options)
        self._bare_switches = bare_switches
        self.hidden: list[tuple[argparse.Action, str]] = []  # what only --help_all tells, and what it tells of it
        for group in groups:
            self.add_flags(getattr(group, "group", "flags"), list_flags(group))

    def add_flags(self, title: str, flags: Iterable[Flag], *, is_hidden: bool = False) -> None:
        """Add flags under a title of --help; hidden ones are told by --help_all alone."""
        group = self.add_argument_group(title)
        for flag in flags:
            text = _describe(flag).replace("%", "%%")
            shown = argparse.SUPPRESS if is_hidden else text
            is_bare = self._bare_switches and _base(flag.kind) is bool
            options: dict[str, Any] = {"action": "store_true"} if is_bare else _read(flag)
            action = group.add_argument(f"--{flag.name}", help=shown, required=flag.default is MISSING, **options)
            if is_hidden:
                self.hidden.append((action, text))
            if _base(flag.kind) is bool and not is_bare:
                group.add_argument(f"--no_{flag.name}", action="store_false", dest=flag.name, help=argparse.SUPPRESS)
        if is_hidden:
            self.add_argument("--help_all", action=_HelpAll, nargs=0, help=f"show the flags of {title} too")

    def error(self, message: str) -> NoReturn:
        """Called by argparse for what it can't parse."""
        raise InputError(f"{message[:1].upper()}{message[1:].rstrip('.')}. See --help for all flags.")

    def parse(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """{flag: value} of what is given on a command line, by default the process's; `InputError` for the rest."""
        words = [_spell(word) for word in (sys.argv[1:] if argv is None else argv)]
        self.check_names(word.split("=")[0] for word in words if _FLAG.match(word) and word != "--")
        for word in words:
            if "\0" in word:  # as a recipe may hold; no file's name can
                raise InputError(f"Got {word!r}, which holds a NUL; take it out.")
        known, extra = self.parse_known_args(words)
        if extra:
            if not any(map(_FLAG.match, words[: words.index(extra[0])])):
                raise InputError(self._explain_unknown(extra[0]))
            raise InputError(
                f"Got {' '.join(extra)!r} behind a flag that takes one value; leave it out. See --help for all flags."
            )
        return vars(known)

    def check_names(self, names: Iterable[str], source: str = "") -> None:
        """`InputError` for a name (--flag) that is no flag; `source` is said behind it, as " in the recipe r.yaml"."""
        for name in names:
            if name not in self._option_string_actions:
                raise InputError(self._explain_unknown(name, source))

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Once for the processes that a launcher started on this machine."""
        if os.environ.get("LOCAL_RANK", "0") == "0":
            super().print_help(file)

    def _explain_unknown(self, word: str, source: str = "") -> str:
        name = word.lstrip("-")
        hint = ANSWERS[name] if name in ANSWERS else self._find_meant(name)
        return f"Got {word!r}{source}, which is no flag of {self.prog}.{hint} See --help for all flags."

    def _find_meant(self, name: str) -> str:
        synonyms = [f"--{meant}" for meant in SYNONYMS.get(name.lower(), ())]
        known = [meant for meant in synonyms if meant.split()[0] in self._option_string_actions]
        # Not the twins that turn a switch off: --jit_mode_eval is no --no_do_eval.
        flags = [flag for flag in self._option_string_actions if name.startswith("no") or not flag.startswith("--no_")]
        near = known or difflib.get_close_matches(f"--{name}", flags, n=1, cutoff=0.7)
        return f" Did you mean {near[0]}?" if near else ""


class _HelpAll(argparse.Action):
    def __call__(self, parser: FlagParser, *_: Any) -> None:  # type: ignore[override]
        for action, text in parser.hidden:
            action.help = text
        parser.print_help()
        parser.exit()


def _spell(word: str) -> str:
    """A flag with underscores in its name; other words as they are."""
    name, sign, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{sign}{value}" if name.startswith("--") else word


def _describe(flag: Flag) -> str:
    has_default = flag.default not in (MISSING, None, False, "") and "efault" not in flag.help
    values = " ".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    return f"{flag.help} (default: {values})" if has_default else flag.help


def _read(flag: Flag) -> dict[str, Any]:
    """How argparse reads the flag's value."""
    kind = _base(flag.kind)
    alone: dict[str, Any] = {"nargs": "?", "const": True}  # as the word that turns it on
    if kind is bool:
        return alone | {"type": _parse_switch, "metavar": "yes|no"}
    if kind == str | bool:
        return alone | {"type": lambda word: _SWITCH_WORDS.get(word.lower(), word), "metavar": "VALUE"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    several = {"nargs": "+"} if get_origin(kind) is list else {}
    item = get_args(kind)[0] if several else kind
    is_map = (get_origin(item) or item) is dict
    return {"type": _parse_map if is_map else item, "metavar": _PLACEHOLDERS.get(item, "VALUE"), **several}


def _base(kind: Any) -> Any:
    """What a word of the command line stands for where several types are allowed; None is never written."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    kinds = [each for each in get_args(kind) if each is not NoneType]
    if str in kinds:
        return str | bool if bool in kinds else str
    return bool if bool in kinds else kinds[0]


def _parse_switch(word: str) -> bool:
    if word.lower() not in _SWITCH_WORDS:
        raise argparse.ArgumentTypeError(f"got {word!r}; allowed are {', '.join(_SWITCH_WORDS)} (case insensitive)")
    return _SWITCH_WORDS[word.lower()]


def _parse_map(word: str) -> dict[str, Any]:
    if len(word) > _LONGEST_MAP:
        raise argparse.ArgumentTypeError(f"got {len(word):,} characters; at most {_LONGEST_MAP:,} are read as JSON")
    try:
        value = json.loads(word)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"got {word[:200]!r}, which is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"got {word[:200]!r}; give a JSON object")
    return value
