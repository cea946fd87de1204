"""Texts: cleaning, and the key by which equal texts are found."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

CLEANING_MODES = ("report", "tweet", "none")
# Between the texts of several columns, until the tokenizer puts its own separator there: of no script, and no blank.
TEXT_SEPARATOR = "\ue000"

# An address ends at the first character that is not printable ASCII, since Chinese text follows it without a space.
# Tweets are cut at 140 characters, so an address may be cut as well: "http://t.c…", "http…", "htt…".
_URL = re.compile(r"(?:https?://|\bwww\.(?=\w))[!-~]*…?|\bhttps?:?/{0,2}…|\bhtt…", re.IGNORECASE)
# A word character before the @ makes it an e-mail address, not a name; "@name@server" is one name.
_NAME = re.compile(r"(?<!\w)(?:[@\uff20]\w+)+")
# Characters that show nothing at the ends of a text: NUL, zero-width space and joiners, byte-order mark, every blank.
_INVISIBLE = "\0\u200b\u200c\u200d\u2060\ufeff" + "".join(filter(str.isspace, map(chr, range(0x3001))))


def _squeeze(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


@lru_cache(maxsize=2)
def clean_text(text: str, mode: str) -> str:
    """Clean one text; the last two results are kept: a text's key asks for the cleaning that it mostly gets itself.

    Modes: "report": URLs and @names removed, lines joined, spaces squeezed (the design report's cleaning); "tweet": URL
    becomes `http`, @name becomes `@user`, hashtags stay, lines joined, spaces squeezed (the normalisation of TweetEval,
    Barbieri et al. 2020); "none": only blanks and NULs at the ends stripped. Others are a ValueError.
    """
    if mode == "report":
        text = _squeeze(_NAME.sub(" ", _URL.sub(" ", text)))
    elif mode == "tweet":
        text = _squeeze(_NAME.sub("@user", _URL.sub(" http ", text)))
    elif mode != "none":
        raise ValueError(f"text cleaning {mode!r} is unknown; allowed: {', '.join(CLEANING_MODES)}")
    return text.strip(_INVISIBLE)


def text_key(text: str) -> str | None:
    """Hash by which texts that say the same are found, whatever `--text_cleaning` is; None for a blank text.

    It is of the `report` cleaning without regard to case, so texts of nothing but URLs and @names are equal.
    """
    if not clean_text(text, "none"):
        return None
    return hashlib.sha256(clean_text(text, "report").casefold().encode("utf-8", "surrogatepass")).hexdigest()
