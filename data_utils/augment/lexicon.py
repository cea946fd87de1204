"""The packaged lists of words: what can stand for each other in English or Chinese, and what English is known by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "words"


@dataclass(frozen=True)
class Lexicon:
    """What may take the place of what.

    Attributes:
        options: entry -> entries that may replace it; none for an entry that is kept as it is. English entries are
            words with one space between them, in lower case.
        longest: units (English words, Chinese characters) of the longest entry.
    """

    options: Mapping[str, tuple[str, ...]]
    longest: int


def parse_lexicon(source: str, *, by_word: bool) -> Lexicon:
    """Read the format that the head of each list explains.

    Args:
        source: text of a list.
        by_word: whether the units of an entry are words, not characters.

    Raises:
        ValueError: an entry has two places, so that only one of them would count.
    """
    options: dict[str, tuple[str, ...]] = {}
    for line in source.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        left, _, right = (part.strip() for part in line.partition(">"))
        group = [entry.strip() for entry in (right or left).split("|")]
        for entry in [left] if right else group:
            if entry in options:
                raise ValueError(f"{entry!r} stands in two lines of a lexicon")
            options[entry] = tuple(other for other in group if other != entry)
    return Lexicon(options, max(len(entry.split()) if by_word else len(entry) for entry in options))


@cache
def load_lexicon(language: str) -> Lexicon:
    """The packaged list of "en" or "zh"."""
    return parse_lexicon((_FOLDER / f"{language}.txt").read_text(encoding="utf-8"), by_word=language == "en")


@cache
def common_words() -> frozenset[str]:
    """Words by which a text is known as English."""
    lines = (_FOLDER / "en_common.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
