"""Pictures that show little, or are no photograph: tiny, of one colour, dark, blurred, screenshots of text.

Limits are for the prepared pictures of 224 pixels a side. On 3,600 pictures of tweets they mark one in a hundred.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.near.pictures import read_pixels
from data_utils.quality.counts import Header

TINY = 64  # pixels of the shorter side as it is stored
_ONE_COLOUR = 5.0  # levels: spread of the colour that spreads most
_DARK = 90.0  # levels of brightness, below which 99 of 100 pixels are
_BLURRED = 25.0  # variance of the Laplacian (Pech-Pacheco et al. 2000)
# Of a screenshot: share of its two most frequent colours, of eight levels each; shares of pixels on an edge, across and
# down; lines of text; variance of the Laplacian by that of the brightness.
_GROUND, _ACROSS, _DOWN, _LINES, _CRISP = 0.6, 0.09, 0.06, 4, 2.0
_EDGE, _LINE = 40.0, 0.08  # levels between neighbours; share of a pixel row on an edge, where it goes through letters


def find_odd(dataset: Dataset, headers: Sequence[Header | None]) -> Mapping[int, Sequence[str]]:
    """What is odd about the pictures of rows of `load_pairs`, by row; `headers` are those of `read_headers`."""
    found: dict[int, list[str]] = defaultdict(list)
    for row, _, pixels in read_pixels(dataset):
        header = headers[row]
        kinds = ["tiny"] if header is not None and min(header[:2]) < TINY else []
        kinds += filter(None, [name_odd(pixels)])
        found[row] += [kind for kind in kinds if kind not in found[row]]
    return {row: kinds for row, kinds in found.items() if kinds}


def name_odd(pixels: NDArray[np.uint8]) -> str | None:
    """The first of "one colour", "dark", "blurred" and "screenshot of text" that pixels (3, S, S) are."""
    if min(pixels.shape[1:]) < 3 or max(channel.std() for channel in pixels) < _ONE_COLOUR:
        return "one colour"
    grey = pixels.mean(axis=0, dtype=np.float32)
    if np.quantile(grey, 0.99) < _DARK:
        return "dark"
    middle = grey[1:-1, 1:-1]
    sharpness = (4 * middle - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).var()
    if sharpness < _BLURRED:
        return "blurred"
    return "screenshot of text" if sharpness > _CRISP * grey.var() and _is_text(pixels, grey) else None


def _is_text(pixels: NDArray[np.uint8], grey: NDArray[np.float32]) -> bool:
    across, down = (np.abs(np.diff(grey, axis=axis)) > _EDGE for axis in (1, 0))
    red, green, blue = (pixels >> 5).astype(np.int64)
    counts = np.sort(np.bincount((red * 64 + green * 8 + blue).ravel(), minlength=2))
    num_lines = np.count_nonzero(np.diff((across.mean(axis=1) > _LINE).astype(np.int8), prepend=0) == 1)
    is_plain = counts[-2:].sum() >= _GROUND * grey.size
    return bool(is_plain and across.mean() >= _ACROSS and down.mean() >= _DOWN and num_lines >= _LINES)
