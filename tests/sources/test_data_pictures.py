"""Decoding of pictures: equal to the towers' own processors, and no exception but PictureError."""

import contextlib
import io
import random
import warnings

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, ViTImageProcessorPil

from modeling.errors import InputError
from modeling.pictures import PictureError, PictureSettings, decode_picture

SIZES = [(400, 301), (301, 400), (224, 224), (333, 250), (48, 48), (57, 391), (640, 97), (225, 256)]
SQUARE = {"height": 224, "width": 224}
SHORTEST = PictureSettings(image_size=32, shortest_edge=32, resize_mode="shortest", resample=2)
SQUASH = PictureSettings(image_size=32, shortest_edge=32, resize_mode="squash", resample=2)
SOUND = Image.merge(
    "RGB", [Image.radial_gradient("L").resize((48, 36)), *2 * [Image.linear_gradient("L").resize((48, 36))]]
)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("processor", "edge", "mode"),
    [
        (CLIPImageProcessorPil(), 224, "shortest"),
        (BitImageProcessorPil(size={"shortest_edge": 256}, resample=3), 256, "shortest"),
        (ViTImageProcessorPil(size={"shortest_edge": 224}, do_center_crop=True, crop_size=SQUARE), 224, "shortest"),
        (CLIPImageProcessorPil(size=SQUARE), 224, "squash"),
        (BitImageProcessorPil(size=SQUARE, resample=3), 224, "squash"),
        (ViTImageProcessorPil(), 224, "squash"),
    ],
)
def test_pixels_equal_those_of_the_towers_processor(processor, edge, mode, size, photo):
    image, resample = photo(size, size), 2 if isinstance(processor, ViTImageProcessorPil) else 3
    pixels = decode_picture(encode(image), PictureSettings(224, edge, mode, resample)).astype(np.float64) / 255
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (processor.image_mean, processor.image_std))
    expected = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    assert pixels.shape == expected.shape
    np.testing.assert_allclose((pixels - mean) / std, expected, atol=1e-2)


@pytest.mark.parametrize("mode", ["squash", "shortest"])
def test_pixels_are_those_of_the_resized_picture(mode, photo):
    picture = photo(7, (90, 60))
    array = decode_picture(encode(picture), PictureSettings(32, 32, mode, 3))
    resized = picture.resize((32, 32) if mode == "squash" else (48, 32), Image.Resampling.BICUBIC)
    left = (resized.width - 32) // 2
    expected = np.asarray(resized.crop((left, 0, left + 32, 32))).transpose(2, 0, 1)
    assert (array == expected).all()
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable


def photograph(photo, size: tuple[int, int]) -> bytes:
    """A JPEG of a photograph's kind: shapes without hard edges, and a camera's grain."""
    pixels = np.asarray(photo(3, (64, 48)).resize(size, Image.Resampling.LANCZOS), dtype=np.float64)
    grain = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return encode(Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)), "JPEG", quality=90)


def decode_both_ways(source: bytes, settings: PictureSettings, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """The result as it is, and with every stored pixel decoded."""
    array = decode_picture(source, settings).astype(int)
    monkeypatch.setattr(JpegImageFile, "draft", lambda image, mode, size: None)
    return array, decode_picture(source, settings).astype(int)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("settings", [PictureSettings(32, 32, "squash", 3), PictureSettings(32, 36, "shortest", 2)])
def test_photograph_shrunk_while_decoding_looks_the_same(settings, scale, photo, monkeypatch):
    side = 3 * scale * settings.shortest_edge
    array, whole = decode_both_ways(photograph(photo, (side + side // 2, side)), settings, monkeypatch)
    difference = np.abs(array - whole)
    assert difference.any(), "nothing was shrunk"
    assert difference.mean() < 1
    assert np.percentile(difference, 99.9) <= 4


@pytest.mark.parametrize("size", [(383, 384), (385, 384), (384, 385), (382, 400)])
def test_other_pictures_are_decoded_whole(size, photo, monkeypatch):
    settings = PictureSettings(64, 64, "squash", 3)
    array, whole = decode_both_ways(photograph(photo, size), settings, monkeypatch)
    assert (array == whole).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    stored = np.zeros((32, 32, 3), dtype=np.uint8)
    stored[:16, :16] = 255  # the white quarter, stored top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = decode_picture(encode(Image.fromarray(stored), "JPEG", exif=exif, quality=95), SHORTEST)
    corners = {"top left": array[0, 4, 4], "top right": array[0, 4, 27]}
    corners |= {"bottom left": array[0, 27, 4], "bottom right": array[0, 27, 27]}
    where = ["top left", "top right", "bottom right", "bottom left", "top left", "top right", "bottom right"]
    assert max(corners, key=corners.get) == [*where, "bottom left"][orientation - 1]


def test_broken_exif_does_not_cost_the_picture():
    source = encode(SOUND, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode_picture(source, SHORTEST).shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (1, 40_000)])
@pytest.mark.parametrize("settings", [SHORTEST, SQUASH], ids=["shortest", "squash"])
def test_odd_sizes_are_resized(size, settings):
    assert decode_picture(encode(Image.new("RGB", size, "white")), settings).min() == 255


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "empty"),
        (b"this is no picture", "known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
        (encode(SOUND, "JPEG")[:-400], "(?i)truncated"),
        (encode(SOUND, "PNG")[:-400], "(?i)truncated"),
        (encode(Image.new("1", (12_000, 10_000))), "pixels"),
        (encode(Image.new("1", (20_000, 10_000))), "pixels"),
    ],
    ids=["empty", "text", "eps", "cut_jpeg", "cut_png", "large", "bomb"],
)
def test_bad_bytes_are_a_picture_error_without_warnings(source, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match=reason):
            decode_picture(source, SHORTEST)


def test_settings_round_trip_and_checks():
    assert PictureSettings(**SHORTEST.to_dict()) == SHORTEST
    with pytest.raises(InputError, match="shortest, squash"):
        PictureSettings(32, 32, "pad", 2)
    with pytest.raises(InputError, match="at least 64"):
        PictureSettings(64, 32, "shortest", 2)
    assert PictureSettings(64, 32, "squash", 2).image_size == 64


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "name"), [(CLIPImageProcessorPil, "clip-vit-b32-processor"), (BitImageProcessorPil, "dinov2-small")]
)
def test_pixels_equal_those_of_the_processor_files(shared, kind, name, size, photo):
    processor = kind.from_pretrained(shared / "models" / name)
    edge = processor.size["shortest_edge"]
    test_pixels_equal_those_of_the_towers_processor(processor, edge, "shortest", size, photo)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_never_raise_anything_else(kind):
    sound, rng = encode(SOUND, kind), random.Random(kind)
    for _ in range(60):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 12)):
            damaged[rng.randrange(min(len(damaged), rng.choice([64, 10_000])))] = rng.randrange(256)
        with contextlib.suppress(PictureError):
            assert decode_picture(bytes(damaged), SHORTEST).shape == (3, 32, 32)
