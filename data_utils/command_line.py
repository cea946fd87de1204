"""A command line of dataclasses, whose faults are told in one sentence."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from transformers import HfArgumentParser

from data_utils.errors import InputError

_FLAG = re.compile("--|-[A-Za-z]")  # -1 is a number


class FlagParser(HfArgumentParser):
    """`HfArgumentParser` that raises an `InputError` where argparse would exit by itself, and names unknown flags."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for what it can't parse."""
        raise InputError(f"{message[:1].upper()}{message[1:].rstrip('.')}. See --help for all flags.")

    def parse(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """The dataclasses, and a namespace of the flags that were added to theirs.

        Args:
            argv: the command line; None stands for that of the process.

        Raises:
            InputError: an unknown flag (with the nearest known one), or a value that isn't allowed.
        """
        _, unknown = self.parse_known_args(argv)
        if unknown:
            raise InputError(self._explain_overfull(argv) or self._explain_unknown(unknown))
        return self.parse_args_into_dataclasses(argv, look_for_args_file=False)

    def _explain_overfull(self, argv: Sequence[str] | None) -> str | None:
        """What is wrong with the first flag of one value that is followed by more; None where there is no such flag."""
        words, known = sys.argv[1:] if argv is None else argv, self._option_string_actions
        for number, flag in enumerate(words):
            values = list(itertools.takewhile(lambda word: not _FLAG.match(word), words[number + 1 :]))
            if flag in known and known[flag].nargs in (None, "?") and len(values) > 1:
                return f"Got {' '.join(values)!r} for {flag}, which takes one value; leave the others out."
        return None

    def _explain_unknown(self, unknown: Sequence[str]) -> str:
        first = next((word for word in unknown if word.startswith("--")), unknown[0]).split("=")[0]
        near = difflib.get_close_matches(first, list(self._option_string_actions), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"Got {' '.join(unknown)!r}, which is no flag of {self.prog}.{hint} See --help for all flags."
