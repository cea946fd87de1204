"""A picture in a slightly other light, and a little closer: the same scene."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageEnhance

from modeling.pictures import PictureError, open_picture

# As factors: far enough from 1 to be another picture, near enough to leave the mood of a scene.
_LEAST_CHANGE, _MOST_CHANGE = 0.05, 0.2
# Share of each side that is kept: text and faces near the rim stay.
_CROP = (0.92, 0.98)
_QUALITY = 92


def change_picture(source: bytes, rng: random.Random, *, flip: bool = False) -> tuple[bytes, tuple[str, ...]]:
    """Other brightness and contrast, and a crop that keeps the proportions and at least 92 % of each side.

    The crop is not resized back: the picture will be resized anyway, and twice would blur it.

    Args:
        source: bytes of a picture file.
        rng: of all draws; the same state gives the same bytes (with the same version of Pillow).
        flip: mirror every second one. Mirrored writing can't be read, so only for pictures without any.

    Returns:
        Bytes of a JPEG file, upright and RGB, and what was changed, like "brightness 1.12".

    Raises:
        PictureError: the bytes are no whole picture, or none that a JPEG can hold.
    """
    picture = open_picture(source)
    brightness, contrast = (1 + rng.choice((-1, 1)) * rng.uniform(_LEAST_CHANGE, _MOST_CHANGE) for _ in range(2))
    share, left, top = rng.uniform(*_CROP), rng.random(), rng.random()
    mirrored = rng.random() < 0.5 and flip
    width, height = (max(1, round(side * share)) for side in picture.size)
    x, y = round((picture.width - width) * left), round((picture.height - height) * top)
    picture = picture.crop((x, y, x + width, y + height))
    picture = ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(brightness)).enhance(contrast)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    target = io.BytesIO()
    try:
        picture.save(target, format="JPEG", quality=_QUALITY)
    except OSError as error:  # a side of more pixels than the format has numbers for
        raise PictureError(f"cannot be written as JPEG: {error}") from error
    changes = [f"brightness {brightness:.2f}", f"contrast {contrast:.2f}", f"crop {share:.2f}"]
    return target.getvalue(), tuple([*changes, "flip"] if mirrored else changes)
