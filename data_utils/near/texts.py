"""Texts that say nearly the same: their shingles overlap (Jaccard); compared where MinHash brings them together.

Broder 1997 for shingles and MinHash; Leskovec, Rajaraman and Ullman 2014, section 3.4, for the bands.
Legend: N texts, S shingles of all texts, K hashes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from data_utils.near.pairs import NO_PAIRS, NearPairs, Numbers, pair_equal
from modeling.text import clean_text

# Texts with this share of shingles in common, of all that either has, are near.
MIN_TEXT_SIMILARITY = 0.6
_SHINGLE, _SHORTEST, _LONGEST = 4, 12, 10_000  # characters; shorter texts are near only where they are equal
# Texts of similarity 0.6 meet in one of the bands with probability 0.9996, of 0.3 with 0.58, of 0.1 with 0.03.
_BANDS, _HASHES_PER_BAND = 32, 3
_NEIGHBOURS = 8  # in a band, with which a text is compared, so that a thousand copies make no million pairs
_PAIRS_AT_ONCE = 50_000
_PUNCTUATION = re.compile(r"[\W_]+|\brt\b")
Hashes = NDArray[np.uint64]


def fold_text(text: str) -> str:
    """What is compared: without addresses, @names and the mark of a retweet, case, punctuation and signs."""
    whole = unicodedata.normalize("NFKC", text[:_LONGEST])
    return " ".join(_PUNCTUATION.sub(" ", clean_text(whole, "report").casefold()).split())


def find_near_texts(texts: Sequence[str]) -> NearPairs:
    """Pairs of N texts that are equal when they are folded, or near; of long ones the beginnings are compared.

    A text in a crowd of near ones is paired with some of them, so that groups are whole, but for rare gaps.
    """
    folded = [fold_text(text) for text in texts]
    firsts, equal = pair_equal((row, text) for row, text in enumerate(folded) if text)
    rows = np.array([row for row in firsts.tolist() if len(folded[row]) >= _SHORTEST], np.int64)
    if len(rows) < 2:
        return equal
    numbers, shingles = _list_shingles([folded[row] for row in rows.tolist()])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    keys = np.unique(np.concatenate([*_meet(_band_keys(shingles, starts))]))
    codes, columns = np.unique(shingles, return_inverse=True)
    shape = (len(rows), len(codes))
    sets = csr_array((np.ones(len(columns), np.int32), columns, np.append(starts, len(numbers))), shape=shape)
    parts = [_compare(sets, keys[start : start + _PAIRS_AT_ONCE]) for start in range(0, len(keys), _PAIRS_AT_ONCE)]
    return NearPairs.join([equal, *(part.map(rows) for part in parts)])


def _list_shingles(texts: Sequence[str]) -> tuple[Numbers, Hashes]:
    """The distinct shingles of each text as (S,) text numbers, rising, and (S,) hashes."""
    pieces = [f" {text} ".encode("utf-32-le", "surrogatepass") for text in texts]
    numbers = np.repeat(np.arange(len(texts)), [len(piece) // 4 for piece in pieces])
    letters = np.frombuffer(b"".join(pieces), np.uint32).astype(np.uint64)
    hashes, size = np.zeros(len(letters) - _SHINGLE + 1, np.uint64), len(letters) - _SHINGLE + 1
    for offset in range(_SHINGLE):
        hashes = _mix(hashes ^ letters[offset : offset + size])
    inside = numbers[:size] == numbers[_SHINGLE - 1 :]
    numbers, hashes = numbers[:size][inside], hashes[inside]
    order = np.lexsort((hashes, numbers))
    numbers, hashes = numbers[order], hashes[order]
    is_new = np.append(True, (np.diff(numbers) != 0) | (hashes[1:] != hashes[:-1]))
    return numbers[is_new], hashes[is_new]


def _mix(values: Hashes) -> Hashes:
    """Scatter 64 bits; the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _band_keys(shingles: Hashes, starts: Numbers) -> Iterator[Hashes]:
    """Of each band a key (N,), which two texts share with the probability of their similarity to the third power."""
    seeds = _mix(np.arange(1, _BANDS * _HASHES_PER_BAND + 1, dtype=np.uint64))
    for band in seeds.reshape(_BANDS, _HASHES_PER_BAND):
        key = np.zeros(len(starts), np.uint64)
        for seed in band:
            key = _mix(key ^ np.minimum.reduceat(_mix(shingles ^ seed), starts))
        yield key


def _meet(bands: Iterator[Hashes]) -> Iterator[Numbers]:
    """Pairs of texts that share a key of a band, each as one number: the smaller text's times N and the other's."""
    for keys in bands:
        order = np.argsort(keys, kind="stable")
        for step in range(1, _NEIGHBOURS + 1):
            left, right = order[:-step], order[step:]
            met = keys[left] == keys[right]
            yield np.minimum(left, right)[met] * len(keys) + np.maximum(left, right)[met]


def _compare(sets: csr_array, keys: Numbers) -> NearPairs:
    first, second = np.divmod(keys, sets.shape[0])
    if not len(keys):
        return NO_PAIRS
    sizes = np.diff(sets.indptr)
    common = np.asarray(sets[first].multiply(sets[second]).sum(axis=1)).ravel()
    similarity = (common / (sizes[first] + sizes[second] - common)).astype(np.float32)
    near = similarity >= MIN_TEXT_SIMILARITY
    return NearPairs(first[near], second[near], similarity[near])
