"""Texts to token numbers, cached under a key that knows the tokenizer, and a tokenizer trained from texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_utils.prepare.cache import SCHEMA_VERSION, build_once
from data_utils.prepare.mapping import Columns, map_to_folder
from data_utils.prepare.pairs import join_columns
from modeling.errors import InputError
from modeling.text import TEXT_SEPARATOR, tokenize_batch

_FEATURES = Features({"input_ids": List(Value("int32")), "text_cut": Value("bool")})
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUED = "##"
# Scripts that put no blanks between words, so that a sentence would be one word; Tibetan parts its syllables otherwise.
_UNSPACED = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar"),
    *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Javanese", "Balinese", "Sundanese"),
)
# A sign of such a script is a word of its own, with the marks on it.
SIGNS = Regex("[" + "".join(rf"\p{{{script}}}" for script in _UNSPACED) + r"]\p{M}*")
_LONGEST_WORD = 100  # letters; WordPiece makes one [UNK] of a longer word, whatever the vocabulary holds


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides which numbers a text becomes."""
    content: list[Any] = [type(tokenizer).__name__, {k: str(v) for k, v in tokenizer.special_tokens_map.items()}]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content += [tokenizer.get_vocab(), tokenizer.init_kwargs]
    else:
        # Left behind by the last call with truncation or padding: the same tokenizer would have two keys.
        truncation, padding = backend.truncation, backend.padding
        backend.no_truncation()
        backend.no_padding()
        content.append(backend.to_str())
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
    content += [tokenizer.truncation_side]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """`InputError` where `max_length` has no room for a token beside the special ones."""
    least = len(tokenizer("")["input_ids"]) + 1
    if max_length < least:
        raise InputError(f"--max_length is {max_length}; this tokenizer needs at least {least}.")


def tokenize_pairs(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    cache_dir: Path,
    overwrite: bool = False,
) -> tuple[Dataset, int]:
    """Add the column input_ids (list of int32), from the cache `tokens-*`, which is built when needed.

    The key holds the tokenizer's whole state, `max_length` and every text.

    Args:
        dataset: rows with a `text`.
        max_length: most tokens per text, special tokens included.
        cache_dir: folder of all caches.
        overwrite: build the cache again.

    Returns:
        The dataset with the column, and the number of its texts that were cut.

    Raises:
        InputError: `max_length` has no room for a token beside the special ones, or the cache cannot be written.
    """
    check_max_length(tokenizer, max_length)
    # All stored rows, also those a `select` left out: then both parts of a split share one cache.
    texts = dataset.data.column("text").to_pylist()
    if not texts:
        return dataset.add_column("input_ids", [], feature=_FEATURES["input_ids"]), 0
    key = hashlib.sha256(f"{SCHEMA_VERSION} {tokenizer_key(tokenizer)} {max_length}".encode())
    for text in texts:
        source = text.encode("utf-8", "surrogatepass")
        key.update(len(source).to_bytes(8, "big") + source)

    def tokenize(texts: Sequence[str]) -> Columns:
        return tokenize_batch(texts, tokenizer, max_length)

    def build(folder: Path) -> None:
        map_to_folder(
            texts, tokenize, folder=folder, features=_FEATURES, description="Tokenizing texts", batch_size=1000
        )

    tokens = build_once(Path(cache_dir), "tokens", key.hexdigest(), build, overwrite=overwrite, checked=True)
    joined = join_columns(dataset, tokens)
    cut = sum(joined.select_columns(["text_cut"]).with_format(None)[:]["text_cut"])
    return joined.remove_columns(["text_cut"]), cut


def _train_vocabulary(texts: list[str], vocab_size: int, *, needs_words: bool, lowercase: bool) -> dict[str, int]:
    """WordPiece vocabulary that depends on the texts alone; without a word in them it has the special tokens alone.

    The trainer numbers the letters inside of words in the order in which it meets them in a randomly seeded hash table,
    and breaks ties between merges by these numbers. Given as special tokens, the letters are numbered beforehand.
    """
    tokenizer = _assemble({token: number for number, token in enumerate(_SPECIALS)}, lowercase=lowercase)
    # The words that a vocabulary is of use for: over one of 300,000 letters the trainer takes a minute.
    split = (tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)) for text in texts)
    kept = [" ".join(word for word, _ in words if len(word) <= _LONGEST_WORD) for words in split]
    letters = sorted({letter for text in kept for letter in text if letter != " "})
    if needs_words and not letters:
        raise InputError(
            f"a tokenizer cannot be trained: no text of the training part holds a word (of up to {_LONGEST_WORD} "
            "letters); check the texts, or read the pictures alone with --fusion image_only."
        )
    continued = [f"{_CONTINUED}{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        show_progress=False,
        special_tokens=[*_SPECIALS, *letters, *continued],
        limit_alphabet=len(letters),
        continuing_subword_prefix=_CONTINUED,
    )
    tokenizer.train_from_iterator(kept, trainer)
    return tokenizer.get_vocab()


def _assemble(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    """BERT's way, but every mark is kept: it tells words apart in most scripts."""
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=vocabulary,
            unk_token="[UNK]",
            continuing_subword_prefix=_CONTINUED,
            max_input_chars_per_word=_LONGEST_WORD,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(strip_accents=False, lowercase=lowercase)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SIGNS, "isolated"), pre_tokenizers.BertPreTokenizer()]
    )
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUED)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def train_wordpiece(
    texts: Iterable[str], *, vocab_size: int, max_length: int, needs_words: bool = True, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer (Devlin et al. 2019) for a text tower from scratch.

    The same texts give the same tokenizer, byte for byte, in any order.

    Args:
        texts: of the training part only.
        vocab_size: most entries; few texts give fewer. All letters of the words are kept, even beyond it.
        max_length: most tokens per text, stored in the tokenizer.
        needs_words: False where no text is read, so that special tokens are vocabulary enough.
        lowercase: make no difference between capitals and small letters.

    Raises:
        InputError: there is no text with a word in it, though it `needs_words`.
    """
    texts = sorted(text.replace(TEXT_SEPARATOR, " ") for text in texts)
    vocabulary = _train_vocabulary(texts, vocab_size, needs_words=needs_words, lowercase=lowercase)
    return PreTrainedTokenizerFast(
        tokenizer_object=_assemble(vocabulary, lowercase=lowercase),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="right",
        model_max_length=max_length,
    )
