"""Reasons drawn over a picture, without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Orange speaks for the answer and blue against it: people who can't tell red from green can tell these apart.
FOR, AGAINST = (230, 97, 1), (30, 80, 200)
MAX_OPACITY = 0.75
MIN_SCALE = 0.01  # so that where nothing has an effect nothing is drawn


def draw_regions(picture: NDArray[np.uint8], regions: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """A picture in grey below a heat map: the strongest region is nearly opaque, one without effect is clear.

    Args:
        picture: (H, W, 3); several pictures one below the other.
        regions: as of `Reasons`.

    Returns:
        (H, W, 3).
    """
    effects, (height, width) = np.asarray(regions, dtype=np.float32), picture.shape[:2]
    strengths = Image.fromarray(effects / max(np.abs(effects).max(), MIN_SCALE))
    heat = np.asarray(strengths.resize((width, height), Image.Resampling.BILINEAR))[..., None]
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]
    colour = np.where(heat > 0, np.asarray(FOR, np.float32), np.asarray(AGAINST, np.float32))
    opacity = np.abs(heat) * MAX_OPACITY
    return (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
