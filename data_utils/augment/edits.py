"""Places of a text that may be changed, places that may not, and what is put there."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Addresses (also cut ones), e-mail, #topic# and #tag, @name, $name, &entity; and the mark of a retweet.
_KEPT = re.compile(
    r"(?<![A-Za-z])(?:htt|www\.)[!-~]*|[\w.+-]+@[\w.-]+"
    r"|[#\uff03][^#\uff03\s]+[#\uff03]|[@\uff20#\uff03$]\w+|&#?\w+;|\bRT\b",
    re.IGNORECASE,
)
_MOST_WORDS = 3


@dataclass(frozen=True)
class Edit:
    """Characters from `start` to `end` of a text become `new`; `kind` is word, typo, filler or case."""

    start: int
    end: int
    new: str
    kind: str


@dataclass(frozen=True)
class Place:
    """Characters from `start` to `end` of a text, and what may take their place."""

    start: int
    end: int
    options: tuple[str, ...]


@dataclass(frozen=True)
class ChangedText:
    """A text, and what was changed in it, like "word: photo -> picture"."""

    text: str
    changes: tuple[str, ...]


def find_kept(text: str) -> list[tuple[int, int]]:
    """Start and end of every address, hashtag, @name and the like: nothing in them is ever changed."""
    return [match.span() for match in _KEPT.finditer(text)]


def choose_words(places: Sequence[Place], rng: random.Random) -> list[Edit]:
    """One to three of the places, and for each of them one of its options; none where there are no places."""
    if not places:
        return []
    chosen = rng.sample(places, rng.randint(1, min(_MOST_WORDS, len(places))))
    return [Edit(place.start, place.end, rng.choice(place.options), "word") for place in chosen]


def apply_edits(text: str, edits: Iterable[Edit]) -> ChangedText:
    """The text with all edits, which don't overlap; letters that only change their case are not worth a mention."""
    parts, changes, end = [], [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        parts += [text[end : edit.start], edit.new]
        end = edit.end
        if edit.kind == "filler":
            changes.append(f"filler: {edit.new.strip()}")
        elif edit.kind != "case":
            changes.append(f"{edit.kind}: {text[edit.start : edit.end]} -> {edit.new}")
    return ChangedText("".join([*parts, text[end:]]), tuple(changes))
