"""A text in slightly other words: one to three of them replaced, in English and Chinese."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "words"
_MOST_WORDS = 3
# Addresses (also cut ones), e-mail, #topic# and #tag, @name, $name, &entity.
_TAGS = re.compile(
    r"(?<![A-Za-z])(?:htt|www\.)[!-~]*|[\w.+-]+@[\w.-]+|[#\uff03][^#\uff03\s]+[#\uff03]|[@\uff20#\uff03$]\w+|&#?\w+;",
    re.IGNORECASE,
)
# A negation, and the three words or characters after it that it may deny, as in "not so very happy".
_ENGLISH_NEGATION = (
    r"\b(?:no|not|never|none|n?either|nor|nobody|nothing|nowhere|noone|without|cannot|hardly|barely|scarcely|nope|nah"
    r"|\w+n['\u2019]t|(?:ai|are|ca|could|did|does|do|had|has|have|is|should|was|were|wo|would)nt)\b"
)
_CHINESE_NEGATION = "(?:[不没沒无無未勿莫甭毋]|非(?!常)|(?<!特)[别別](?!人))"
_DENIED = re.compile(
    rf"{_ENGLISH_NEGATION}(?:(?:\W+[\w'\u2019]+){{0,3}}?\W+{_ENGLISH_NEGATION})*(?:\W+[\w'\u2019]+){{0,3}}"
    # Also the two before it, as in 开心不开心.
    rf"|\w{{0,2}}{_CHINESE_NEGATION}(?:\w{{0,3}}?{_CHINESE_NEGATION})*\w{{0,3}}",
    re.IGNORECASE,
)
# Whole words in lower case, or with a capital before a word in lower case: others may be names. Not part of an address,
# a compound, a smiley or a cut word.
_WORD = re.compile(
    r"(?<![\w@/\\'\u2019\-.:*~])(?:[a-z]+|[A-Z][a-z]+(?=,?\s+[a-z]))"
    r"(?![\w@/\\'\u2019\-*\u2026]|\.\w|:\w|\s*\.?\u2026|\.\.\.\s*(?:@|$))"
)
_ARTICLE = re.compile(r"\ban? $", re.IGNORECASE)
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\uff66-\uff9f\uac00-\ud7af]")
# With two different ones of these or of the list, a text is taken for English.
_COMMON_WORD = re.compile(
    "the|and|is|are|was|were|you|your|this|that|it|its|i|my|me|we|they|he|she|with|for|have|has|had|so|just|not|of|to|at"
    "|be|been|good|great|day|today|love|like|what|when|who|why|how|from|out|up|about|can|will"
)


@cache
def load_words(language: str) -> Mapping[str, tuple[str, ...]]:
    """The packaged list of "en" or "zh", whose head explains its format: entry -> what may replace it."""
    options: dict[str, tuple[str, ...]] = {}
    for line in (_FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            left, _, right = (part.strip() for part in line.partition(">"))
            group = [entry.strip() for entry in (right or left).split("|")]
            for entry in [left] if right else group:
                options[entry] = tuple(other for other in group if other != entry)
    return options


def change_text(text: str, rng: random.Random) -> tuple[str, tuple[str, ...]] | None:
    """Replace one to three words by others of the packaged list.

    Hashtags, @names, addresses, negations and the words next to them, names, cut words and texts in other languages
    stay as they are.

    Args:
        text: decoded, not cleaned.
        rng: of all draws; the same state gives the same text.

    Returns:
        The changed text and what was changed, like "photo -> picture"; None if nothing can be changed.
    """
    rest = _TAGS.sub(_hide, text)
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", rest)]
    if _KANA_OR_HANGUL.search(rest):
        return None
    if len(_HAN.findall(rest)) > max(1, len(words)):
        places = list(_find_chinese(_DENIED.sub(_hide, rest)))
    elif len({word for word in words if _COMMON_WORD.fullmatch(word) or word in load_words("en")}) > 1:
        places = list(_find_english(_DENIED.sub(_hide, rest)))
    else:
        return None
    if not places:
        return None
    changes = []
    for start, old, options in sorted(rng.sample(places, rng.randint(1, min(_MOST_WORDS, len(places)))), reverse=True):
        new = rng.choice(options)
        text = text[:start] + new + text[start + len(old) :]
        changes.append(f"{old} -> {new}")
    return text, tuple(reversed(changes))


def _hide(match: re.Match[str]) -> str:
    return "@" * len(match.group())


def _find_english(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Each place that may be changed: its start, the word there, and what may replace it, in the word's case."""
    for match in _WORD.finditer(text):
        word = match.group()
        options = load_words("en").get(word.lower(), ())
        if _ARTICLE.search(text, max(0, match.start() - 4), match.start()):
            options = tuple(option for option in options if (option[0] in "aeiou") == (word[0].lower() in "aeiou"))
        if options:
            yield match.start(), word, options if word.islower() else tuple(each.capitalize() for each in options)


def _find_chinese(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """The same; there are no spaces, so the longest entry at each place counts."""
    longest_first = sorted(load_words("zh"), key=len, reverse=True)
    for match in re.finditer("|".join(longest_first), text):
        options = load_words("zh")[match.group()]
        if options:
            yield match.start(), match.group(), options
