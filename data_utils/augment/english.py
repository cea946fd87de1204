"""Light changes of English tweets: words of the lexicon, typos, and words that only open a sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_utils.augment.edits import Edit, Place, choose_words
from data_utils.augment.lexicon import Lexicon, common_words, load_lexicon

FILLERS = ("So,", "Well,", "Btw,", "By the way,", "Hey,", "Ok,", "You know,")
NEGATIONS = frozenset(
    (
        "no", "not", "never", "none", "nor", "neither", "nobody", "nothing", "nowhere", "noone", "without", "cannot",
        "hardly", "barely", "scarcely", "nope", "nah", "aint", "arent", "cant", "couldnt", "didnt", "doesnt", "dont",
        "hadnt", "hasnt", "havent", "isnt", "shouldnt", "wasnt", "werent", "wont", "wouldnt",
    )
)  # fmt: skip
# Sentences that begin so take no filler.
_OPENERS = frozenset(("so", "well", "ok", "look", "please", "thank", "thanks", "you", "your", "by", "or", "but", "and"))
_WORD = re.compile(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)*")
# A word glued to one of these is part of an address, a compound, a smiley or a cut word.
_GLUE_BEFORE = re.compile(r"[\w@#\uff03$&/\\'\u2019\-.:*~]$")
_GLUE_AFTER = re.compile(r"[\w@/\\'\u2019\-&*\u2026]|\.[A-Za-z0-9]|:\w|\s*\.?\u2026|\.\.\.$|\.\.\.\s*htt")
_NUMBER_AFTER = re.compile(r"\s*\d")
_SENTENCE_END = re.compile(r"[.!?:\n]")
# "not so very happy": the words after a negation that it may deny.
_NEGATION_REACH = 3
_SHORTEST_TYPO = 5
_SHORTEST_SENTENCE = 3
_CHANCE_OF_EXTRA = 0.25


@dataclass(frozen=True)
class _Word:
    """A word of a text: its place, itself in lower case, and whether it may be changed at all, or in this case."""

    start: int
    end: int
    text: str
    key: str
    free: bool
    cased: bool


def is_english(text: str, kept: Sequence[tuple[int, int]]) -> bool:
    """Whether enough of its words are common English ones: two, and a sixth of all; one of a text up to three words."""
    keys = [word.key for word in _find_words(text, kept)]
    known = [key for key in keys if key in common_words() or key in load_lexicon("en").options]
    return len(known) >= (2 if len(keys) > 3 else 1) and 6 * len(known) >= len(keys)


def change_english(text: str, kept: Sequence[tuple[int, int]], rng: random.Random) -> list[Edit]:
    """Draw one to three words to be replaced, and sometimes a typo or an opening word; always something if it can be.

    Args:
        text: an English text.
        kept: spans that may not be changed (`find_kept`).
        rng: of the draws.

    Returns:
        Edits that don't overlap; none if nothing can be changed.
    """
    words, lexicon = _find_words(text, kept), load_lexicon("en")
    places, fixed = _find_places(words, lexicon, text)
    edits = choose_words(places, rng)
    wants_typo, wants_filler = (rng.random() < _CHANCE_OF_EXTRA for _ in range(2))
    if not edits and not wants_filler:
        wants_typo = True
    if wants_typo:
        edits += _make_typo(words, fixed, edits, lexicon, rng)
    if wants_filler or not edits:
        edits += _add_filler(text, words, kept, edits, rng)
    # The text may have room for no filler where one was drawn: then a typo is tried after all.
    return edits or _make_typo(words, fixed, edits, lexicon, rng)


def _find_words(text: str, kept: Sequence[tuple[int, int]]) -> list[_Word]:
    found = [match for match in _WORD.finditer(text) if not any(a < match.end() and match.start() < b for a, b in kept)]
    words: list[_Word] = []
    denied = 0
    for place, match in enumerate(found):
        key = match.group().lower().replace("\u2019", "'")
        glued = _GLUE_BEFORE.search(text, max(0, match.start() - 1), match.start()) or _GLUE_AFTER.match(
            text, match.end()
        )
        if key in NEGATIONS or key.endswith("n't"):
            denied = _NEGATION_REACH + 1
        after = found[place + 1].group() if place + 1 < len(found) else ""
        gap = text[found[place - 1].end() if place else 0 : match.start()]
        starts = (not place or _SENTENCE_END.search(gap)) and not _NUMBER_AFTER.match(text, match.end())  # "Furious 7"
        cased = _is_cased_well(match.group(), starts=bool(starts), after=after)
        words.append(_Word(*match.span(), match.group(), key, not glued and not denied, cased))
        denied = max(0, denied - 1)
    return words


def _is_cased_well(word: str, *, starts: bool, after: str) -> bool:
    """Not a name, nor part of a title: in lower case, I, or the first of a sentence that goes on in lower case."""
    if word.islower() or word == "I" or word[:2] in ("I'", "I\u2019"):
        return True
    return starts and word[1:].islower() and (after == "I" or not after or after.islower())


def _find_places(words: Sequence[_Word], lexicon: Lexicon, text: str) -> tuple[list[Place], set[int]]:
    """Where entries of the lexicon stand, longest first, and the numbers of the words that are to be kept."""
    places: list[Place] = []
    fixed: set[int] = set()
    first = 0
    while first < len(words):
        count = next((n for n in range(lexicon.longest, 0, -1) if _entry(words, first, n, text) in lexicon.options), 0)
        if count:
            part = words[first : first + count]
            options = lexicon.options[_entry(words, first, count, text)]
            fitting = tuple(option for option in options if _fits(option, words, first, count))
            if not options:
                fixed.update(range(first, first + count))
            elif fitting and part[0].cased and all(word.free and (word.cased or word.text.islower()) for word in part):
                upper = part[0].text[0].isupper()
                cased = tuple(option[0].upper() + option[1:] if upper else option for option in fitting)
                places.append(Place(part[0].start, part[-1].end, cased))
        first += max(count, 1)
    return places, fixed


def _entry(words: Sequence[_Word], first: int, count: int, text: str) -> str:
    """The key of `count` words with nothing but blanks between them; "" if there are not so many."""
    part = words[first : first + count]
    joined = all(text[a.end : b.start].isspace() for a, b in pairwise(part))
    return " ".join(word.key for word in part) if joined and len(part) == count else ""


def _fits(option: str, words: Sequence[_Word], first: int, count: int) -> bool:
    """Whether "a" or "an" before it stays right, and no word comes to stand twice in a row."""
    before = words[first - 1].key if first else ""
    after = words[first + count].key if first + count < len(words) else ""
    inside = option.split()
    if before in ("a", "an") and (before == "an") != _takes_an(option):
        return False
    return inside[0] != before and inside[-1] != after


def _takes_an(option: str) -> bool:
    if option.startswith(("uni", "use", "eu", "one")):
        return False
    return option[0] in "aeiou" or option.startswith(("hour", "honest", "hono"))


def _make_typo(
    words: Sequence[_Word], fixed: set[int], edits: Sequence[Edit], lexicon: Lexicon, rng: random.Random
) -> list[Edit]:
    """Two letters inside of one word swapped, or one of them doubled; [] if all are short or like aaaah."""
    able = [
        word
        for number, word in enumerate(words)
        if word.free and word.text.islower() and word.text.isalpha() and len(word.text) >= _SHORTEST_TYPO
        if number not in fixed and not any(edit.start < word.end and word.start < edit.end for edit in edits)
    ]
    for word in rng.sample(able, len(able)):
        typos = [typo for typo in _typos(word.text) if typo not in common_words() and typo not in lexicon.options]
        if typos:
            return [Edit(word.start, word.end, rng.choice(typos), "typo")]
    return []


def _typos(word: str) -> Iterator[str]:
    """The first and the last letter stay, by which people recognise a word; no letter is lost."""
    for place in range(1, len(word) - 1):
        left, right = word[place], word[place + 1]
        if left not in (word[place - 1], right):
            yield word[:place] + left + word[place:]
        if left != right and place + 2 < len(word):
            yield word[:place] + right + left + word[place + 2 :]


def _add_filler(
    text: str, words: Sequence[_Word], kept: Sequence[tuple[int, int]], edits: Sequence[Edit], rng: random.Random
) -> list[Edit]:
    """An opening word before a sentence that begins with a common word, after nothing but RT, names and addresses."""
    first = words[0] if len(words) >= _SHORTEST_SENTENCE else None
    if first is None or not first.free or not first.cased or first.key not in common_words() - _OPENERS:
        return []
    head = text[: first.start]
    for start, end in reversed(kept):
        if end <= first.start and not text[start:end].startswith(("#", "\uff03")):
            head = head[:start] + head[end:]
    if head.strip(" :\t\r\n") or any(edit.start == first.start for edit in edits):
        return []
    filler = rng.choice(FILLERS)
    if first.text.islower():
        return [Edit(first.start, first.start, f"{filler.lower()} ", "filler")]
    opened = [Edit(first.start, first.start, f"{filler} ", "filler")]
    is_i = first.key == "i" or first.key.startswith("i'")
    return opened if is_i else [*opened, Edit(first.start, first.start + 1, first.text[0].lower(), "case")]
