"""A text in slightly other words: the same message, for English and Chinese."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from data_utils.augment.edits import ChangedText, Edit, Place, apply_edits, choose_words, find_kept
from data_utils.augment.english import change_english, is_english
from data_utils.augment.lexicon import load_lexicon

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_OTHER_SCRIPTS = re.compile(r"[\u3040-\u30ff\uff66-\uff9f\uac00-\ud7af]")  # kana and hangul
_LATIN_WORD = re.compile(r"[A-Za-z]+")
_HAN_NEGATION = re.compile("[不没沒无無未勿莫甭毋]|非(?!常)|(?<!特)[别別](?!人)")
# "没那么好看": the characters between a negation and what it denies.
_NEGATION_REACH = 3


def change_text(text: str, rng: random.Random) -> ChangedText | None:
    """Say the same in slightly other words.

    Words and phrases give way to others of the packaged lexicons; English texts may also get a typo or an opening word.
    Never changed are hashtags, @names, addresses, smileys, negations and the words next to them, words in capitals,
    names, cut words, and texts in other languages.

    Args:
        text: decoded, not cleaned.
        rng: of all draws; the same state gives the same text.

    Returns:
        The changed text, or None if nothing of it can be changed.
    """
    kept = find_kept(text)
    edits: list[Edit] = []
    if _is_chinese(text, kept):
        edits = _change_chinese(text, kept, rng)
    elif is_english(text, kept) and not _OTHER_SCRIPTS.search(text):
        edits = change_english(text, kept, rng)
    changed = apply_edits(text, edits)
    return changed if changed.text != text else None


def _is_chinese(text: str, kept: Sequence[tuple[int, int]]) -> bool:
    """More Chinese characters than Latin words outside of tags and addresses, and no Japanese or Korean anywhere."""
    if _OTHER_SCRIPTS.search(text):
        return False
    rest = list(text)
    for start, end in kept:
        rest[start:end] = " " * (end - start)
    plain = "".join(rest)
    return len(_HAN.findall(plain)) > max(1, len(_LATIN_WORD.findall(plain)))


def _change_chinese(text: str, kept: Sequence[tuple[int, int]], rng: random.Random) -> list[Edit]:
    """One to three words of the lexicon replaced; there are no spaces, so the longest entry at each place is taken."""
    lexicon = load_lexicon("zh")
    places: list[Place] = []
    start = 0
    while start < len(text):
        ends = range(min(len(text), start + lexicon.longest), start, -1)
        end = next((end for end in ends if text[start:end] in lexicon.options), start)
        options = lexicon.options.get(text[start:end], ())
        if options and not _is_denied(text, start, end) and not any(a < end and start < b for a, b in kept):
            places.append(Place(start, end, options))
        start = max(end, start + 1)
    return choose_words(places, rng)


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether a negation stands closely before, or right after as in 开心不开心."""
    before = re.split(r"\W", text[max(0, start - _NEGATION_REACH) : start])[-1]
    return bool(_HAN_NEGATION.search(before) or _HAN_NEGATION.match(text, end))
