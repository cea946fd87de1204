"""Tokens: cached under a key that knows the tokenizer, cut with the end token kept; a tokenizer that is repeatable."""

import inspect
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from data_utils.prepare import tokens
from data_utils.prepare.tokens import tokenize_pairs, tokenizer_key, train_wordpiece
from modeling.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a good day, a GOOD night", "bad weather again #rain", "", "good rain and bad days of weather and of night"]
DATASET = Dataset.from_dict({"text": TEXTS})


@pytest.fixture
def tokenizer():
    return train_wordpiece(TEXTS, vocab_size=200, max_length=32)


@pytest.fixture
def work(monkeypatch):
    """Sizes of the batches that were really tokenized."""
    sizes = []
    real = tokens.tokenize_batch
    monkeypatch.setattr(tokens, "tokenize_batch", lambda texts, *args: sizes.append(len(texts)) or real(texts, *args))
    return sizes


def test_tokens_are_the_tokenizers_own(tokenizer, tmp_path):
    dataset, cut = tokenize_pairs(DATASET, tokenizer, max_length=32, cache_dir=tmp_path)
    assert dataset["input_ids"][:] == tokenizer(TEXTS)["input_ids"]
    assert dataset.features["input_ids"].feature.dtype == "int32"
    assert dataset["text"][:] == TEXTS
    assert cut == 0


def test_long_texts_are_cut_and_counted_with_the_end_token_kept(tokenizer, tmp_path):
    dataset, cut = tokenize_pairs(DATASET, tokenizer, max_length=6, cache_dir=tmp_path)
    assert cut == 3
    assert max(map(len, dataset["input_ids"][:])) == 6
    assert {row[-1] for row in dataset["input_ids"][:]} == {tokenizer.sep_token_id}
    with pytest.raises(InputError, match="at least 3"):
        tokenize_pairs(DATASET, tokenizer, max_length=2, cache_dir=tmp_path)


def test_clip_tokenizer_keeps_its_end_token(shared, tmp_path):
    clip = AutoTokenizer.from_pretrained(shared / "models" / "clip-vit-b32-processor")
    dataset, cut = tokenize_pairs(DATASET, clip, max_length=7, cache_dir=tmp_path)
    assert cut == 2
    assert {row[-1] for row in dataset["input_ids"][:]} == {clip.eos_token_id}
    assert dataset[2]["input_ids"] == [clip.bos_token_id, clip.eos_token_id]


def test_second_call_tokenizes_nothing_and_changes_rebuild(tokenizer, tmp_path, work):
    def run(dataset=DATASET, tokenizer=tokenizer, max_length=32, **options):
        work.clear()
        result = tokenize_pairs(dataset, tokenizer, max_length=max_length, cache_dir=tmp_path, **options)[0]
        return result["input_ids"][:], sum(work)

    first, count = run()
    assert count == 4
    assert run() == (first, 0)
    tokenizer(TEXTS, padding=True, truncation=True, max_length=5)  # leaves its settings behind in the tokenizer
    assert run() == (first, 0)
    assert run(max_length=8)[1] == 4
    assert run(overwrite=True) == (first, 4)
    other = train_wordpiece([*TEXTS, "new words"], vocab_size=200, max_length=32)
    assert run(tokenizer=other)[1] == 4
    changed, count = run(dataset=Dataset.from_dict({"text": [*TEXTS[:3], "changed"]}))
    assert count == 4
    assert changed[:3] == first[:3]


def test_parts_of_a_split_share_one_cache_and_count_their_own(tokenizer, tmp_path, work):
    whole, _ = tokenize_pairs(DATASET, tokenizer, max_length=6, cache_dir=tmp_path)
    part, cut = tokenize_pairs(DATASET.select([3, 1]), tokenizer, max_length=6, cache_dir=tmp_path)
    assert part["input_ids"][:] == [whole[3]["input_ids"], whole[1]["input_ids"]]
    assert (cut, sum(work)) == (2, 4)
    again, _ = tokenize_pairs(whole, tokenizer, max_length=32, cache_dir=tmp_path)
    assert again[3]["input_ids"] == tokenizer(TEXTS[3])["input_ids"]


def test_no_rows_give_no_tokens(tokenizer, tmp_path):
    dataset, cut = tokenize_pairs(DATASET.select([]), tokenizer, max_length=6, cache_dir=tmp_path)
    assert (len(dataset), cut) == (0, 0)
    assert "input_ids" in dataset.column_names


def test_trained_tokenizer_round_trips_and_handles_what_it_never_saw(tokenizer, tmp_path):
    assert tokenizer.decode(tokenizer("Good RAIN")["input_ids"]) == "[CLS] good rain [SEP]"
    assert tokenizer.pad_token_id == 0
    assert tokenizer.model_max_length == 32
    assert tokenizer.unk_token_id in tokenizer("\u4e2d")["input_ids"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert tokenizer_key(loaded) != ""
    pair = tokenizer("good", "bad")
    assert [tokenizer.convert_ids_to_tokens(pair["input_ids"])[number] for number in (0, 2, 4)] == [
        "[CLS]",
        "[SEP]",
        "[SEP]",
    ]


def test_word_too_long_for_wordpiece_has_no_part_in_the_vocabulary(tokenizer):
    longest, longer = "good" * 25, "z" * 20_000
    assert train_wordpiece([*TEXTS, longest], vocab_size=200, max_length=32).tokenize(longest) == [longest]
    trained = train_wordpiece([*TEXTS, longer, f"a {longer}"], vocab_size=200, max_length=32)
    assert trained.get_vocab() == tokenizer.get_vocab()
    assert trained.tokenize(f"good {longer}") == ["good", "[UNK]"]


@pytest.mark.parametrize("text", ["", " ", "\u200b", "a" * 101])
def test_text_without_words_is_refused(text):
    with pytest.raises(InputError, match="no text"):
        train_wordpiece([text], vocab_size=100, max_length=8)
    assert len(train_wordpiece([text], vocab_size=100, max_length=8, needs_words=False)) == 5


def test_training_is_the_same_in_every_process_and_order():
    def train(seed):
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefg", k=rng.randint(1, 6))) for _ in range(900)]
        texts = [" ".join(words[start : start + 9]) for start in range(0, 900, 9)]
        random.Random(seed).shuffle(texts)
        return train_wordpiece(texts, vocab_size=400, max_length=16).backend_tokenizer.to_str()

    here = train(0)
    assert all(train(seed) == here for seed in range(1, 6))
    assert len(json.loads(here)["model"]["vocab"]) == 400
    script = "import random\nfrom data_utils.prepare.tokens import train_wordpiece\n" + textwrap.dedent(
        inspect.getsource(train)
    )
    there = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(train(7))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    assert there.stdout.strip() == here
