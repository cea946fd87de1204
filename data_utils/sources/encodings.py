"""In which encoding the texts of a data set are, found by the sense that they make in it."""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data_utils.sources.letters import ANY, score_in
from modeling.errors import InputError

_MARKS = (  # of UTF-32 first, as one of UTF-16 begins like it
    ("utf-32-le", codecs.BOM_UTF32_LE),
    ("utf-32-be", codecs.BOM_UTF32_BE),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
)
# What fits where the chosen encoding doesn't: the second of them fits everything.
_LAST = ("cp1252", "latin-1")
LOST = "\ufffd"
_SEVEN_BITS = ("iso2022", "utf-7", "hz")
# Bytes that no text has, but for the halves of characters in UTF-16.
_HALF = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"))  # begin what isn't ASCII in ISO 2022
# At most so many texts, and bytes of each, are looked at.
_MOST_TEXTS, _MOST_BYTES = 1000, 2000
# Encodings that fall so far behind (a logarithm) in so many texts are not tried on the others.
_TRIED, _HOPELESS = 50, 200
# Natural logarithms: of an ASCII character, and one that no text has; of two scripts side by side in one word.
_ASCII, _UNREAL, _ALPHABETS_MIXED, _SIGNS_MIXED = -3.0, -15.0, -8.0, -4.0
_ALPHABET, _SIGN = "\u0370-\u1fff\uff61-\uff9f", "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_MIXED_ALPHABETS = re.compile(f"(?<=[A-Za-z])[{_ALPHABET}]|[{_ALPHABET}](?=[A-Za-z])")
_MIXED_SIGNS = re.compile(f"(?<=[A-Za-z])[{_SIGN}]|[{_SIGN}](?=[A-Za-z])")
_SCRIPTS = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC"}  # as Unicode calls their letters
# What UTF-8 writes in one or two bytes; runs beyond ASCII; and letters that stand in no language's words.
_TWO_BYTES = frozenset(map(chr, range(0x800)))
_PAIRS, _SELDOM = re.compile("[\x80-\u07ff]+"), re.compile("[\u037b-\u037d]")
_UNUSUAL, _COMPANY = -6.0, 4.0


class _Candidate(NamedTuple):
    """An encoding, how likely it is beforehand (a logarithm), the languages it is for, and others that it holds."""

    codec: str
    prior: float
    languages: tuple[str, ...]
    others: tuple[str, ...] = ()


_WESTERN = ("english", "french", "german", "spanish", "portuguese", "italian", "nordic", "icelandic")
_EASTERN = ("polish", "czech", "hungarian", "romanian", "croatian", "german")
_CYRILLIC, _BALTIC = ("russian", "ukrainian"), ("lithuanian", "latvian", "estonian")
_PRIORS: dict[tuple[str, ...], dict[str, float]] = {  # of equal ones the first
    ("chinese",): {"gb18030": 0},
    _WESTERN: {"cp1252": 0, "iso8859_15": -3, "mac_roman": -5, "cp850": -5, "cp437": -6},
    ("japanese",): {"cp932": -2, "euc_jp": -2},
    ("traditional",): {"big5hkscs": -2},
    ("korean",): {"cp949": -2, "johab": -4},
    _CYRILLIC: {"cp1251": 0, "iso8859_5": -2, "cp866": -2, "mac_cyrillic": -5},
    ("russian",): {"koi8_r": 0},
    ("ukrainian",): {"koi8_u": 0},
    _EASTERN: {"cp1250": -3, "iso8859_2": -3.5, "cp852": -5, "mac_latin2": -6},
    ("greek",): {"cp1253": -2, "iso8859_7": -2.5, "cp737": -5, "mac_greek": -5},
    ("turkish",): {"cp1254": -3, "cp857": -5, "mac_turkish": -6},
    ("hebrew",): {"cp1255": -2, "cp862": -5},
    ("arabic", "persian", "french"): {"cp1256": -3},
    ("arabic",): {"iso8859_6": -3.5},
    _BALTIC: {"cp1257": -5, "cp775": -6},
    ("vietnamese",): {"cp1258": -5},
    ("thai",): {"cp874": -3},
    ("french",): {"cp863": -6},
    ("portuguese",): {"cp860": -6},
    (ANY,): {"utf-8": -5},  # damaged
    ("chinese", "traditional", "japanese", "korean"): {"utf-16-le": 0, "utf-16-be": 0},
}
_CANDIDATES = [
    _Candidate(codec, prior, languages, ("japanese", "russian") if codec == "gb18030" else ())
    for languages, priors in _PRIORS.items()
    for codec, prior in priors.items()
]


def check_encoding(name: object) -> None:
    """`InputError` for what is no text encoding of Python."""
    try:
        fits = isinstance(name, str) and "a".encode(name).decode(name) == "a"
    except (LookupError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"Got --text_encoding {name!r}, which is no text encoding that Python knows; name one like cp1252, "
            "gb18030, shift_jis, big5, euc_kr or koi8_r, or leave it out to have it found."
        )


def decode_text(source: bytes, encoding: str | None = None) -> tuple[str, str]:
    """The text of a file's bytes, without a byte-order mark, and its encoding, by a name that encodes without a mark.

    Args:
        source: the file's bytes.
        encoding: of a text that is neither UTF-8 nor has the mark or the NULs of UTF-16 or UTF-32; None: the one in
            which this text alone makes the most sense.
    """
    if encoding is not None and codecs.lookup(encoding).name.startswith(_SEVEN_BITS):
        certain = _try(source, encoding) or _decode_certain(source)
    else:
        certain = _decode_certain(source)
    if certain is not None:
        return certain
    chosen = encoding or find_encoding([source]) or _LAST[0]
    damaged = _mend(source) if codecs.lookup(chosen).name == "utf-8" else None
    return damaged or next(filter(None, (_try(source, codec) for codec in (chosen, *_LAST))))


def find_encoding(sources: Iterable[bytes]) -> str | None:
    """The one encoding in which the texts of a data set make the most sense together; None where each one's is certain.

    Each candidate's score is the logarithm of the likelihood of its characters, each text in the language that fits it.
    """
    pieces: list[bytes] = []
    number, stride = 0, 1
    certain_ones: Counter[str] = Counter()
    for source in sources:
        if (certain := _decode_certain(source)) is not None:
            certain_ones[certain[1]] += 1
            continue
        if number % stride == 0:
            pieces.append(_cut(source))
        if len(pieces) > _MOST_TEXTS:  # go on with every second, and so on
            pieces, stride = pieces[::2], stride * 2
        number += 1
    if not pieces:
        return None
    some = pieces[:: -(-len(pieces) // _TRIED)]
    scores = {candidate: _score(candidate, some) for candidate in _CANDIDATES}
    hopeful = [candidate for candidate in _CANDIDATES if scores[candidate] > max(scores.values()) - _HOPELESS]
    # Where most texts have the NULs of UTF-16, the few words without one are of it as well.
    company = {codec: _COMPANY * len(pieces) for codec in _WIDE if certain_ones[codec] > number}
    return max(hopeful, key=lambda candidate: _score(candidate, pieces) + company.get(candidate.codec, 0)).codec


def _decode_certain(source: bytes) -> tuple[str, str] | None:
    """Text and encoding where marks, NULs or the rules of UTF-8 tell it."""
    for codec, mark in _MARKS:
        if source.startswith(mark) and (found := _try(source[len(mark) :], codec)):
            return found
    for escape, codec in _ESCAPES:
        if escape in source and (found := _try(source, codec)):
            return found
    found = _try(source, "utf-8-sig")
    if found is not None and _is_doubtful(found[0]):
        return None
    return _decode_wide(source, found) if _HALF.search(source.strip(b"\0")) else found


def _is_doubtful(text: str) -> bool:
    """Whether a text that fits the rules of UTF-8 is of no language: of short Chinese words in GB18030 some do."""
    wide = _PAIRS.findall(text)
    if not wide or not set(text) <= _TWO_BYTES:
        return False
    scripts = [{unicodedata.name(each, "?").split()[0] for each in run} & _SCRIPTS for run in wide]
    return any(len(found) > 1 for found in scripts) or bool(_SELDOM.search(text))


def _decode_wide(source: bytes, narrow: tuple[str, str] | None) -> tuple[str, str] | None:
    """A text with bytes that no text has: as UTF-32 or UTF-16, where that makes more sense than `narrow`."""
    best, piece = narrow, source[:_MOST_BYTES]
    highest = -math.inf if narrow is None else _UNREAL * len(_HALF.findall(piece)) + _ASCII * len(piece)
    for codec in _WIDE:
        controls = _HALF.findall(piece.decode(codec, "replace").strip("\0").encode("utf-8", "surrogatepass"))
        score = _score_text(_Candidate(codec, 0, (ANY,)), piece) + _UNREAL * len(controls)
        if score > highest and (found := _try(source, codec)):
            best, highest = found, score
    return best


def _try(source: bytes, codec: str) -> tuple[str, str] | None:
    try:
        return source.decode(codec), codec.removesuffix("-sig")
    except (UnicodeError, ValueError):
        return None


def _mend(source: bytes) -> tuple[str, str] | None:
    """UTF-8 that was cut within a character, or damaged, if more characters are whole; U+FFFD stands for the others."""
    text = source.decode("utf-8", "replace")
    lost = text.count(LOST)
    return (text, "utf-8") if sum(character > "\x7f" for character in text) > 2 * lost else None


def _cut(source: bytes) -> bytes:
    """The piece of a text from its first byte beyond ASCII on, or just before."""
    match = re.search(rb"[\x80-\xff]", source)
    start = max(0, match.start() - 2) // 2 * 2 if match else 0
    return source[start : start + _MOST_BYTES]


def _score(candidate: _Candidate, sources: Sequence[bytes]) -> float:
    return candidate.prior + sum(_score_text(candidate, source) for source in sources)


def _score_text(candidate: _Candidate, source: bytes) -> float:
    text = source.decode(candidate.codec, "replace")
    wide = [character for character in text if character > "\x7f"]
    scores = [score_in(language, wide) for language in candidate.languages]
    scores += [score_in(language, wide) + _UNUSUAL for language in candidate.others]
    mixed = _ALPHABETS_MIXED * len(_MIXED_ALPHABETS.findall(text)) + _SIGNS_MIXED * len(_MIXED_SIGNS.findall(text))
    return max(scores) + mixed + _ASCII * (len(text) - len(wide))
