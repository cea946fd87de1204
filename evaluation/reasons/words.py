"""The words of a text as units that can be left out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.tokens import SIGNS
from modeling.text import TEXT_SEPARATOR, tokenize_batch

Span = tuple[int, int]
_WORDS = pre_tokenizers.Sequence([pre_tokenizers.Split(SIGNS, "isolated"), pre_tokenizers.WhitespaceSplit()])


def split_words(text: str) -> list[Span]:
    """Where words begin and end: what lies between blanks, and each sign of a script without blanks."""
    return [span for _, span in _WORDS.pre_tokenize_str(text.replace(TEXT_SEPARATOR, " "))]


def leave_out(text: str, words: Sequence[Span], hidden: Collection[int]) -> str:
    """The text up to its last word without those of these numbers, and without the blanks before them."""
    kept, end = [], 0
    for number, (start, stop) in enumerate(words):
        gap = text[end:start]
        if number not in hidden:
            kept.append(gap + text[start:stop])
        elif TEXT_SEPARATOR in gap:
            kept.append(gap)
        end = stop
    return "".join(kept).strip()


def find_read(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Sequence[Span]:
    """The first words of a text, those that are read wholly or in part where it is cut behind `max_length` tokens."""
    words = split_words(text)[:max_length]  # of more, some have no token, and so no effect

    def tokenize(count: int) -> tuple[list[int], bool]:
        tokens = tokenize_batch([text[: words[count - 1][1]] if count else ""], tokenizer, max_length)
        return tokens["input_ids"][0], tokens["text_cut"][0]

    count = bisect_left(range(len(words) + 1), True, key=lambda number: tokenize(number)[1])
    if count <= len(words) and tokenize(count)[0] == tokenize(count - 1)[0]:  # the tokens were full before it
        count -= 1
    return words[:count]
