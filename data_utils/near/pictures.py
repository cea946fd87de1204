"""Pictures that are nearly the same: recompressed, resized, or cut a little.

Perceptual hashes (Zauner 2010, section 3.2: signs of the low frequencies of a cosine transform) say which pictures may
be the same; these are laid over each other, shifted and stretched by Gauss-Newton steps (Baker and Matthews 2004), and
their colours compared where they overlap (Lin 1989). Legend: M pictures, P pairs, T side of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import isqrt

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.fft import dct

from data_utils.near.pairs import NO_PAIRS, Floats, NearPairs, Numbers, pair_equal

# Pictures whose colours agree at least so far (concordance) when they are laid over each other are near.
MIN_PICTURE_SIMILARITY = 0.96
THUMBNAIL = 32
_HASH_SIDE = 8
_MOST_BITS, _MIN_UNALIGNED = 16, 0.6  # of a pair that is laid over each other: other bits of 64, correlation before
_FLAT = 2.0  # levels: pictures whose brightness spreads less show nothing to compare
_STEPS = 6
_LEAST_OVERLAP, _MOST_STRETCH, _MOST_MOVE = 0.6, 1.33, 0.15
_PAIRS_AT_ONCE, _CELLS_AT_ONCE = 512, 20_000_000
Bytes = NDArray[np.uint8]
_GRID = (np.arange(THUMBNAIL, dtype=np.float32) + 0.5) / THUMBNAIL * 2 - 1  # of pixels' middles, -1 to 1


def read_pixels(dataset: Dataset) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """Row number, key and pixels (3, side, side) of each picture of the rows of `load_pairs`."""
    columns = dataset.select_columns(["image", "image_key"]).with_format("arrow")
    for start in range(0, len(dataset), 256):
        table = columns[start : start + 256]
        for offset, key in enumerate(table["image_key"].to_pylist()):
            if key is None:
                continue
            keys = key.split(",")
            pixels = np.frombuffer(table["image"][offset].as_buffer(), np.uint8)
            side = isqrt(len(pixels) // (3 * len(keys)))
            yield from ((start + offset, *each) for each in zip(keys, pixels.reshape(-1, 3, side, side), strict=True))


def shrink(pixels: NDArray[np.uint8]) -> Bytes:
    """A picture (3, side, side) as a thumbnail (3, T, T) of uint8: means of T x T fields."""
    weights = _field_weights(pixels.shape[1])
    return (weights @ pixels.astype(np.float32) @ weights.T).round().astype(np.uint8)


@cache
def _field_weights(side: int) -> Floats:
    """Of each of `side` pixels the share in the mean of each of T fields, (T, side)."""
    edges, whole = np.arange(THUMBNAIL + 1) * side / THUMBNAIL, np.arange(side)
    weights = (np.minimum(whole + 1, edges[1:, None]) - np.maximum(whole, edges[:-1, None])).clip(0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def find_near_pictures(dataset: Dataset) -> NearPairs:
    """Pairs of rows of `load_pairs` with a picture that is byte-equal or near; of several pictures any may be."""
    rows, keys, thumbnails = list[int](), list[str](), list[Bytes]()
    for row, key, pixels in read_pixels(dataset):
        rows.append(row)
        keys.append(key)
        thumbnails.append(shrink(pixels))
    if not rows:
        return NO_PAIRS
    firsts, equal = pair_equal(enumerate(keys))
    near = compare_thumbnails(np.stack(thumbnails)[firsts]).map(firsts)
    return NearPairs.join([equal, near]).map(np.array(rows))


def compare_thumbnails(thumbnails: Bytes) -> NearPairs:
    """Pairs of M thumbnails (M, 3, T, T) that are near; those of one hash are compared with the first of it alone."""
    shown = np.flatnonzero([_to_grey(each).std() > _FLAT for each in thumbnails])
    values = thumbnails[shown]
    hashes = hash_thumbnails(values)
    _, first_of, hash_of = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.flatnonzero(first_of[hash_of] != np.arange(len(hashes)))
    same = _verify(values, first_of[hash_of[others]], others)
    lone = np.setdiff1d(np.arange(len(hashes)), same.second)
    pairs = [_verify(values, lone[first], lone[second]) for first, second in _meet(hashes[lone])]
    return NearPairs.join([same, *pairs]).map(shown)


def hash_thumbnails(thumbnails: Bytes) -> NDArray[np.uint64]:
    """64 bits of each of M thumbnails: which of the 8 x 8 lowest frequencies lie above their median."""
    low = dct(dct(_to_grey(thumbnails), axis=1)[:, :_HASH_SIDE], axis=2)[:, :, :_HASH_SIDE].reshape(-1, _HASH_SIDE**2)
    return np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0]


def _to_grey(thumbnails: Bytes) -> Floats:
    return thumbnails.mean(axis=-3, dtype=np.float32)


def _meet(hashes: NDArray[np.uint64]) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of hashes that differ in few bits: all are compared, block by block."""
    size = max(1, _CELLS_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), size):
        block, rest = hashes[start : start + size], hashes[start:]
        first, second = np.nonzero(np.bitwise_count(block[:, None] ^ rest[None, :]) <= _MOST_BITS)
        kept = first < second
        yield first[kept] + start, second[kept] + start


def _verify(thumbnails: Bytes, first: Numbers, second: Numbers) -> NearPairs:
    """Those of some pairs that are the same picture when they are laid over each other."""
    found = []
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        left, right = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
        grey = [_to_grey(thumbnails[rows]).reshape(len(rows), -1) for rows in (left, right)]
        likely = np.flatnonzero(_correlate(*(_center(each, np.float32(1)) for each in grey)) >= _MIN_UNALIGNED)
        left, right = left[likely], right[likely]
        if len(left):
            similarity = align(thumbnails[left].astype(np.float32), thumbnails[right].astype(np.float32))
            near = similarity >= MIN_PICTURE_SIMILARITY
            found.append(NearPairs(left[near], right[near], similarity[near]))
    return NearPairs.join(found)


def align(fixed: Floats, moved: Floats) -> Floats:
    """How far the colours of thumbnails (P, 3, T, T) agree while the moved ones are shifted and stretched to fit, (P,).

    The largest concordance of the overlap. Each step solves for a stretch and a shift per axis, a gain and an offset of
    the brightness by least squares.
    """
    count = len(fixed)
    scale, shift = np.ones((2, count), np.float32), np.zeros((2, count), np.float32)
    best = np.full(count, -1, np.float32)
    for step in range(_STEPS + 1):
        warped, overlap = _warp(moved, scale, shift)
        is_enough = overlap.mean(axis=1) >= _LEAST_OVERLAP
        best = np.maximum(best, np.where(is_enough, _agree(fixed, warped, overlap), -1))
        if step < _STEPS:
            moves = _find_moves(fixed.mean(axis=1), warped.mean(axis=1), overlap)
            shift += scale * moves[:, 1::2].T
            scale = (scale * (1 + moves[:, ::2].T)).clip(1 / _MOST_STRETCH, _MOST_STRETCH)
    return best


def _find_moves(fixed: Floats, warped: Floats, overlap: Floats) -> Floats:
    """Stretch and shift down, stretch and shift across, (P, 4), that bring brightness (P, T, T) closer to the fixed."""
    count = len(fixed)
    target, shown = (_center(each.reshape(count, -1), overlap) for each in (fixed, warped))
    down, across = (each * THUMBNAIL / 2 for each in np.gradient(warped, axis=(1, 2)))
    slopes = [each.reshape(count, -1) for each in (down * _GRID[:, None], down, across * _GRID, across)]
    jacobian = np.stack([*slopes, shown, np.ones_like(shown)], axis=2) * overlap[:, :, None]
    gain = np.linalg.norm(target, axis=1) / np.maximum(np.linalg.norm(shown, axis=1), 1e-3)
    residual = target / np.maximum(gain, 1e-3)[:, None] - shown
    transposed = jacobian.transpose(0, 2, 1)
    normal = (transposed @ jacobian).astype(np.float64)
    normal += np.eye(6) * np.maximum(1e-6 * np.trace(normal, axis1=1, axis2=2), 1e-6)[:, None, None]
    moves = np.linalg.solve(normal, (transposed @ residual[:, :, None]).astype(np.float64))[:, :4, 0]
    return moves.clip(-_MOST_MOVE, _MOST_MOVE).astype(np.float32)


def _agree(fixed: Floats, warped: Floats, overlap: Floats) -> Floats:
    """Lin's concordance correlation of all colours (P, 3, T, T) in the overlap, (P,)."""
    mask = np.tile(overlap, 3)
    total = np.maximum(mask.sum(axis=1), 1)
    values = [each.reshape(len(fixed), -1) for each in (fixed, warped)]
    means = [(each * mask).sum(axis=1) / total for each in values]
    left, right = ((each - mean[:, None]) * mask for each, mean in zip(values, means, strict=True))
    spread = (left**2).sum(axis=1) + (right**2).sum(axis=1) + total * (means[0] - means[1]) ** 2
    return 2 * (left * right).sum(axis=1) / np.maximum(spread, 1e-3)


def _warp(pictures: Floats, scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Thumbnails (P, 3, T, T) read at other places, linearly, and which pixels (P, T * T) have such a place, 1 or 0."""
    weights, inside = [], []
    for stretch, move in zip(scale, shift, strict=True):
        places = (stretch[:, None] * _GRID + move[:, None] + 1) * THUMBNAIL / 2 - 0.5
        inside.append((places > -0.5) & (places < THUMBNAIL - 0.5))
        near = 1 - np.abs(places.clip(0, THUMBNAIL - 1)[:, :, None] - np.arange(THUMBNAIL, dtype=np.float32))
        weights.append(near.clip(0))
    overlap = (inside[0][:, :, None] & inside[1][:, None, :]).reshape(len(pictures), -1).astype(np.float32)
    return weights[0][:, None] @ pictures @ weights[1].transpose(0, 2, 1)[:, None], overlap


def _center(values: Floats, overlap: Floats | np.float32) -> Floats:
    mask = np.broadcast_to(overlap, values.shape)
    total = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return (values - (values * mask).sum(axis=1, keepdims=True) / total) * mask


def _correlate(left: Floats, right: Floats) -> Floats:
    sizes = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / np.maximum(sizes, 1e-3)
