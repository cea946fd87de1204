"""The exception that is told in one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class InputError(ValueError):
    """A fault in what the user gave: what was got, what is allowed, what to do.

    The entries print its text as one line and exit with status 2, without a traceback.
    """


def reason_of(error: Exception) -> str:
    """What another library's error says, in one short line; the name of its kind where it says nothing."""
    words = " ".join(str(error).split("\n\n")[0].split())
    return (words if len(words) <= 200 else f"{words[:200]} ...") or type(error).__name__


def check_choice(flag: str, value: object, allowed: Collection[str]) -> None:
    """`InputError` with the allowed values, and the nearest of them, unless `value` is one of them."""
    if value not in allowed:
        near = difflib.get_close_matches(str(value), list(allowed), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"Got {flag} {value!r}; allowed are {', '.join(allowed)}.{hint}")
