"""Pictures of every mode to RGB: transparency on one ground, wide numbers scaled to 8 bits."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageCms

# What a web page shows behind a picture without colours of its own, so what logos and drawings are made for.
GROUND = 255
# What is white in a picture of numbers: the first of these that its largest number doesn't exceed.
_WHITE = {"I": (255, 65_535, 2**31 - 1), "F": (1, 255, 65_535)}
_SCALED_BY = {"L;2": 85, "L;4": 17}


def scale_key(image: Image.Image) -> None:
    """Before a picture is loaded: Pillow scales grey values of 2 and 4 bits, but not the one that is transparent."""
    tiles = getattr(image, "tile", None)  # of a picture that came from a file
    key, form = image.info.get("transparency"), tiles[0].args if tiles else None
    if isinstance(key, int) and form in _SCALED_BY:
        image.info["transparency"] = key * _SCALED_BY[form]


def to_rgb(image: Image.Image) -> Image.Image:
    """The colours that are seen where the picture lies on white; colours hidden under full transparency are not.

    Grey values of more than 8 bits, and floats, are scaled to 8 bits, since Pillow would clip them.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_numbers(image).convert("RGB")
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_srgb()) or image
    if image.has_transparency_data:
        return _compose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _compose(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of 16 bits, where Pillow keeps 8
        image.info["transparency"] = tuple(value >> 8 for value in key)
    layer = image.convert("RGBA")
    ground = Image.new("RGB", image.size, (GROUND,) * 3)
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def _scale_numbers(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    values = np.where(np.isfinite(values), values, 0)
    largest = values.max()
    white = 65_535 if image.mode.startswith("I;16") else _find_white(image.mode, largest)
    grey = (values.clip(0) * (255 / white)).round().astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = GROUND
    return Image.fromarray(grey)


def _find_white(mode: str, largest: float) -> float:
    return next((white for white in _WHITE.get(mode, _WHITE["I"]) if largest <= white), largest)


@cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
