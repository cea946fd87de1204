"""Picture files: bytes to a square uint8 array, with the resizing of the tower's own processor."""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from .choices import MAX_PIXELS, RESIZE_MODES
from .errors import InputError, check_choice
from .file_kinds import name_kind, name_text

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# The name is not trusted: a file is read as what it is. Only formats of plain pixels; others start helper programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_EXIF_ORIENTATION = 0x0112
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_TRANSPOSE = {number: Image.Transpose[name] for number, name in enumerate(_TURNS, start=2)}
# Only the middle square survives the crop, so of a longer strip only the middle part is resized (memory stays small).
_LONGEST_STRIP = 32
# A JPEG is decoded at 1/2, 1/4 or 1/8 if that leaves at least this many times the needed pixels on each side. On 80
# tweets' pictures the result differs by 0.3 of 255 levels on average, by 3 at most in 99.9 % of the values; a photo of
# 12 megapixels takes a fifth to a third of the time.
_SPARE = 3
_SCALES = (8, 4, 2)
# Stored pixels of a JPEG that count as one: a progressive one holds them all in memory, any takes time for each.
_PACKED, _PACKED_PROGRESSIVE = 16, 4
# What a web page shows behind a picture without colours of its own, so what logos and drawings are made for.
GROUND = 255
# What is white in a picture of numbers: the first of these that its largest number doesn't exceed.
_WHITE = {"I": (255, 65_535, 2**31 - 1), "F": (1, 255, 65_535)}
_SCALED_BY = {"L;2": 85, "L;4": 17}
# What lies beside the pixels, like a profile or an editor's history, costs no picture up to what all may take together.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
_OPENING = Lock()


class PictureError(Exception):
    """A picture that cannot be decoded; its text is the reason."""


@dataclass(frozen=True)
class PictureSettings:
    """How pictures become arrays; all values come from the picture tower's own processor."""

    image_size: int  # side of the square result in pixels
    shortest_edge: int  # "shortest" only: pixels the shortest side is resized to before the centre crop
    resize_mode: str  # "shortest" or "squash" (straight to the square)
    resample: int  # Pillow's resampling code (2 bilinear, 3 bicubic, ...)

    def __post_init__(self) -> None:
        check_choice("the picture resize mode", self.resize_mode, RESIZE_MODES)
        if self.image_size < 1:
            raise InputError(f"the picture size is {self.image_size}; it takes at least 1 pixel.")
        if self.resize_mode == "shortest" and self.shortest_edge < self.image_size:
            raise InputError(
                f"the shortest side is resized to {self.shortest_edge} pixels, less than the crop of "
                f"{self.image_size}; give a shortest edge of at least {self.image_size} or a smaller --image_size."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a config file."""
        return asdict(self)


def _turning(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; `exif_transpose` fails on odd tags of sound pictures, which it rewrites."""
    try:
        return _TRANSPOSE.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block raises anything; viewers show such a picture as it is stored
        return None


def _shrink_while_decoding(image: Image.Image, settings: PictureSettings | None, max_pixels: int) -> None:
    """Ask the JPEG decoder, no other, for a smaller picture where that looks the same, or there are too many pixels."""
    width, height = image.size
    scale = 1 if settings is None else _find_scale(width, height, settings)
    while scale < _SCALES[0] and width * height > scale**2 * max_pixels:
        scale *= 2
    if scale > 1:
        image.draft(None, (max(1, width // scale), max(1, height // scale)))


def _find_scale(width: int, height: int, settings: PictureSettings) -> int:
    """By how much a JPEG of this size can be shrunk so that the result looks the same."""
    if max(width, height) > _LONGEST_STRIP * min(width, height):  # its cut is a whole number of stored pixels
        return 1
    least = _SPARE * (settings.image_size if settings.resize_mode == "squash" else settings.shortest_edge)
    for scale in _SCALES:
        # A side that the scale does not divide would be rounded up, which shifts every pixel.
        if width % scale == height % scale == 0 and min(width, height) >= scale * least:
            return scale
    return 1


def _check_size(image: Image.Image, stored: tuple[int, int], max_pixels: int) -> None:
    """`PictureError` where decoding takes too much memory or time."""
    packed = stored[0] * stored[1] // (_PACKED_PROGRESSIVE if "progressive" in image.info else _PACKED)
    if max(image.width * image.height, packed) > max_pixels:
        raise PictureError(
            f"{stored[0]} x {stored[1]} pixels, more than --max_image_pixels {max_pixels} allows; raise that, at some "
            "10 bytes of memory per pixel and process, or scale the picture down"
        )


def _cut_strip(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _LONGEST_STRIP * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _resize(image: Image.Image, settings: PictureSettings) -> Image.Image:
    """Resize and crop with the arithmetic of transformers' PIL image processors."""
    side, resample = settings.image_size, Image.Resampling(settings.resample)
    if settings.resize_mode == "squash":
        return image.resize((side, side), resample=resample)
    image = _cut_strip(image)
    width, height = image.size
    shortest = min(width, height)
    # Integer truncation as in transformers' get_resize_output_image_size: another rounding shifts every pixel.
    width, height = (int(settings.shortest_edge * length / shortest) for length in (width, height))
    image = image.resize((width, height), resample=resample)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _scale_key(image: Image.Image) -> None:
    """Before a picture is loaded: Pillow scales grey values of 2 and 4 bits, but not the one that is transparent."""
    tiles = getattr(image, "tile", None)  # of a picture that came from a file
    key, form = image.info.get("transparency"), tiles[0].args if tiles else None
    if isinstance(key, int) and form in _SCALED_BY:
        image.info["transparency"] = key * _SCALED_BY[form]


def _to_rgb(image: Image.Image) -> Image.Image:
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
    whites = (65_535,) if image.mode.startswith("I;16") else _WHITE.get(image.mode, _WHITE["I"])
    white = next((white for white in whites if largest <= white), largest)
    grey = (values.clip(0) * (255 / white)).round().astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = GROUND
    return Image.fromarray(grey)


@cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _open(source: bytes | str) -> Image.Image:
    """Without Pillow's own bound, which knows nothing of JPEGs that are decoded smaller: `_check_size` takes its place.

    Whatever else opens pictures in this process keeps that bound.
    """
    with _OPENING:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def read_header(source: bytes | str) -> tuple[int, int, str, str]:
    """Width, height, mode and format of a picture as it is stored, by the beginning of its bytes or of a file.

    `PictureError` where they are no picture's.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(source) as image:
                return image.width, image.height, image.mode, image.format or ""
    except Exception as error:
        raise PictureError(_reason(error, source if isinstance(source, bytes) else b"?")) from error


def open_picture(
    source: bytes | Image.Image, settings: PictureSettings | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The picture in a file's bytes: first frame, upright, RGB on white ground; resized once if there are settings.

    Args:
        source: the file's bytes (JPEG, PNG, WebP, GIF, BMP or TIFF, whatever the file is called); or a picture of
            Pillow's, which stays as it is. Large JPEGs give slightly other pixels by it, as they were decoded whole.
        settings: size, resize mode and resampling of the picture tower.
        max_pixels: most pixels that are decoded.

    Raises:
        PictureError: the bytes are no whole picture, or one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(source) if isinstance(source, bytes) else source.copy() as image:
                stored = image.size
                _shrink_while_decoding(image, settings, max_pixels)
                _check_size(image, stored, max_pixels)
                _scale_key(image)
                image.load()
                turning = _turning(image)
                picture = _to_rgb(image)
            picture = picture if turning is None else picture.transpose(turning)
            return picture if settings is None else _resize(picture, settings)
    except PictureError:
        raise
    except Exception as error:  # hostile files make decoders raise every kind of exception
        raise PictureError(_reason(error, source)) from error


def decode_picture(source: bytes | Image.Image, settings: PictureSettings, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`open_picture` as a uint8 array of shape (3, image_size, image_size), channels first."""
    square = open_picture(source, settings, max_pixels)
    # Band by band takes less than half as long as transposing interleaved pixels.
    bands = bytearray().join([square.tobytes("raw", band) for band in "RGB"])
    return np.frombuffer(bands, dtype=np.uint8).reshape(3, square.height, square.width)


def _reason(error: Exception, source: bytes | Image.Image) -> str:
    if not source:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError) and isinstance(source, bytes):
        return name_kind(source) or name_text(source) or "not a picture in a known format"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
