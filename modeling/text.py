"""Texts: cleaning, the key by which equal texts are found, tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLEANING_MODES = ("report", "tweet", "none")
# Between the texts of several columns, until the tokenizer puts its own separator there: of no script, and no blank.
TEXT_SEPARATOR = "\ue000"

# An address ends at the first character that is not printable ASCII, since Chinese text follows it without a space.
# Tweets are cut at 140 characters, so an address may be cut as well: "http://t.c…", "http…", "htt…".
_URL = re.compile(r"(?i:(?:https?://|\bwww\.(?=\w))[!-~]*…?|\bhttps?:?/{0,2}…|\bhtt…)")
# A word character before the @ makes it an e-mail address, not a name; "@name@server" is one name.
_NAME = re.compile(r"(?<!\w)(?:[@\uff20]\w+)+")
# By the mode of the cleaning: what is replaced in turn, before blanks are squeezed.
REPLACEMENTS = {"report": ((_URL, " "), (_NAME, " ")), "tweet": ((_URL, " http "), (_NAME, "@user")), "none": ()}
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
    if mode not in REPLACEMENTS:
        raise ValueError(f"text cleaning {mode!r} is unknown; allowed: {', '.join(CLEANING_MODES)}")
    for pattern, replacement in REPLACEMENTS[mode]:
        text = pattern.sub(replacement, text)
    return (text if mode == "none" else _squeeze(text)).strip(_INVISIBLE)


def text_key(text: str) -> str | None:
    """Hash by which texts that say the same are found, whatever `--text_cleaning` is; None for a blank text.

    It is of the `report` cleaning without regard to case, so texts of nothing but URLs and @names are equal.
    """
    if not clean_text(text, "none"):
        return None
    return hashlib.sha256(clean_text(text, "report").casefold().encode("utf-8", "surrogatepass")).hexdigest()


def tokenize_batch(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, Any]:
    """Tokenize texts; those longer than `max_length` tokens are cut by the tokenizer, which keeps its end token.

    Returns:
        input_ids, a list of numbers per text, and text_cut, whether it was cut.
    """
    if any(TEXT_SEPARATOR in text for text in texts):
        separator = f" {tokenizer.sep_token or ''} "
        texts = [text.replace(TEXT_SEPARATOR, separator) for text in texts]
    tokens = tokenizer(list(texts), verbose=False)["input_ids"]
    cut = [len(row) > max_length for row in tokens]
    long = [number for number, is_cut in enumerate(cut) if is_cut]
    if long:
        shorter = tokenizer([texts[number] for number in long], truncation=True, max_length=max_length)["input_ids"]
        for number, row in zip(long, shorter, strict=True):
            tokens[number] = row
    return {"input_ids": tokens, "text_cut": cut}
