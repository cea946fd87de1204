"""Loading weights without a word of transformers' own, and the words for what doesn't fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

NUM_NAMED = 5  # keys named of each kind of difference


def describe_differences(
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Sequence[int], Sequence[int]]],
) -> str:
    """One text that names missing, unexpected and wrongly sized keys, and what to do; empty where there are none.

    Args:
        mismatched: (key, size in the file, size in the model).
    """
    sizes = [f"{key} is {tuple(found)} in the file, {tuple(wanted)} in the model" for key, found, wanted in mismatched]
    parts = [
        f"{len(items)} {what}: {'; '.join(sorted(items)[:NUM_NAMED])}"
        + (f"; and {len(items) - NUM_NAMED} more." if len(items) > NUM_NAMED else ".")
        for what, items in (
            ("keys missing in the file", missing),
            ("keys in the file that the model hasn't", unexpected),
            ("keys of another size", sizes),
        )
        if items
    ]
    remedy = "Use the same --model, --fusion and tower settings as the run that wrote it, or start a new run."
    return " ".join([*parts, remedy]) if parts else ""


@contextmanager
def without_reports() -> Iterator[None]:
    """Without transformers' tables of missing and unused weights, which we check ourselves, and without its bars."""
    verbosity, shows_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()
