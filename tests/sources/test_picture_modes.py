"""Pictures of every mode and format: transparency on white, wide numbers, LAB; large ones within memory."""

import io
import multiprocessing
import resource
import struct
import time
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms
from sources.test_data_pictures import encode

from modeling.pictures import PictureError, PictureSettings, decode_picture

SQUASH = PictureSettings(image_size=16, shortest_edge=16, resize_mode="squash", resample=2)
SIZE = (40, 32)
# Left half opaque black, right half transparent with black, red or green hidden below.
HIDDEN = {"black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0)}


def logo(hidden: str) -> Image.Image:
    image = Image.new("RGBA", SIZE, (*HIDDEN[hidden], 0))
    image.paste((0, 0, 0, 255), (0, 0, SIZE[0] // 2, SIZE[1]))
    return image


def halves(source: bytes) -> tuple[list[int], list[int]]:
    array = decode_picture(source, SQUASH)
    return array[:, 8, 2].tolist(), array[:, 8, 13].tolist()


def as_palette(image: Image.Image) -> Image.Image:
    """Index 0 is transparent, whatever its colour."""
    numbers = (np.asarray(image)[..., 3] > 0).astype(np.uint8)
    found = Image.fromarray(numbers, "P")
    found.putpalette([*image.getpixel((SIZE[0] - 1, 0))[:3], 0, 0, 0])
    found.info["transparency"] = 0
    return found


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    ("kind", "build", "options"),
    [
        ("PNG", lambda image: image, {}),
        ("PNG", lambda image: image.convert("LA"), {}),
        ("PNG", as_palette, {"transparency": 0}),
        ("PNG", as_palette, {"transparency": b"\0\xff"}),
        ("GIF", as_palette, {"transparency": 0}),
        ("GIF", lambda image: image, {}),
        ("GIF", lambda image: image, {"save_all": True, "append_images": [Image.new("RGBA", SIZE)]}),
        ("WEBP", lambda image: image, {"lossless": True, "exact": True}),
        ("WEBP", lambda image: image, {"lossless": True, "save_all": True, "append_images": [Image.new("RGBA", SIZE)]}),
        ("TIFF", lambda image: image, {}),
        ("TIFF", lambda image: image.convert("LA"), {}),
        ("TIFF", lambda image: image, {"compression": "tiff_lzw"}),
    ],
)
def test_transparent_parts_are_white_whatever_they_hide(kind, build, options, hidden):
    assert halves(encode(build(logo(hidden)), kind, **options)) == ([0, 0, 0], [255, 255, 255])


def test_half_transparent_is_half_way_to_white():
    found = decode_picture(encode(Image.new("RGBA", SIZE, (200, 0, 100, 128)), "PNG"), SQUASH)[:, 5, 5]
    assert found.tolist() == [227, 127, 177]


def png(depth: int, colour: int, rows: bytes, extra: bytes, side: int = 8) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + (chunk(b"tRNS", extra) if extra else b"")
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "pixel", "key", "expected"),
    [
        (8, 0, b"\x30", b"\x00\x30", 255),
        (8, 0, b"\x30", b"\x00\x31", 0x30),
        (8, 2, b"\x30" * 3, b"\x00\x30" * 3, 255),
        (16, 0, b"\x12\x34", b"\x12\x34", 255),
        (16, 0, b"\x12\x34", b"\x12\x35", 0x12),
        (16, 2, b"\x12\x34" * 3, b"\x12\x34" * 3, 255),
        (16, 4, b"\x12\x34\x00\x00", b"", 255),
        (16, 6, b"\x12\x34" * 3 + b"\x00\x00", b"", 255),
        (16, 6, b"\x12\x34" * 3 + b"\xff\xff", b"", 0x12),
    ],
)
def test_colours_that_stand_for_transparent(depth, colour, pixel, key, expected):
    rows = (b"\0" + pixel * 8) * 8
    assert np.unique(decode_picture(png(depth, colour, rows, key), SQUASH)).tolist() == [expected]


@pytest.mark.parametrize(("depth", "value", "grey"), [(1, 0, 0), (1, 1, 255), (2, 2, 170), (4, 5, 85)])
def test_transparent_grey_of_few_bits(depth, value, grey):
    pixels = int(f"{value:0{depth}b}" * (8 // depth), 2)
    rows = (b"\0" + bytes([pixels]) * depth) * 8
    for key, expected in ((value, 255), (1 - value if depth == 1 else value + 1, grey)):
        source = png(depth, 0, rows, struct.pack(">H", key))
        assert np.unique(decode_picture(source, SQUASH)).tolist() == [expected]


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.uint16, 0, 65_535),
        (np.int32, 0, 65_535),
        (np.int32, 0, 2**31 - 1),
        (np.int32, -5, 255),
        (np.float32, 0.0, 1.0),
        (np.float32, 0.0, 255.0),
        (np.float32, -1.0, 65_535.0),
        (np.float32, np.nan, 1e9),
        (np.float32, -np.inf, 1.0),
    ],
)
def test_numbers_of_any_width_go_from_black_to_white(dtype, low, high):
    values = np.full(SIZE[::-1], low, dtype=dtype)
    values[:, SIZE[0] // 2 :] = high
    assert halves(encode(Image.fromarray(values), "TIFF")) == ([0, 0, 0], [255, 255, 255])
    assert not decode_picture(encode(Image.fromarray(np.zeros_like(values)), "TIFF"), SQUASH).any()


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 40, 60), (30, 90, 200)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "LAB", "P", "RGBX"])
def test_every_mode_that_tiff_holds_gives_its_colour(mode, colour):
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 doesn't read what it writes here")
    image = Image.new("RGB", SIZE, colour)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = image.convert(mode)
    found = decode_picture(encode(image, "TIFF"), SQUASH)[:, 5, 5].astype(int)
    assert np.abs(found - colour).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_pictures_without_transparency_are_as_pillow_converts_them(mode, photo):
    image = photo(1, SIZE).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    source = encode(image, kind)
    expected = Image.open(io.BytesIO(source)).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    assert (decode_picture(source, SQUASH) == np.asarray(expected).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [(800, 400), (801, 399), (1000, 20), (20, 1000)])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_beyond_the_bound_is_decoded_reduced(size, progressive, photo):
    source = encode(photo(2, size), "JPEG", quality=95, progressive=progressive)
    least = size[0] * size[1] // 4 + 800  # the four parts of a picture, and rounded up sides
    reduced = decode_picture(source, SQUASH, least).astype(int)
    whole = decode_picture(encode(photo(2, size), "PNG"), SQUASH).astype(int)
    assert np.abs(reduced - whole).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_other_formats_beyond_the_bound_are_refused_with_the_flag(kind):
    source = encode(Image.new("RGB", (100, 50)), kind)
    assert decode_picture(source, SQUASH, 5000).shape == (3, 16, 16)
    with pytest.raises(PictureError, match=r"100 x 50 pixels, more than --max_image_pixels 4999 allows; raise that"):
        decode_picture(source, SQUASH, 4999)


@pytest.mark.parametrize(("progressive", "least"), [(False, 20_000), (True, 80_000)])
def test_jpeg_of_many_times_the_bound_is_refused(progressive, least, photo):
    source = encode(photo(2, (800, 400)), "JPEG", progressive=progressive)
    assert decode_picture(source, SQUASH, least).shape == (3, 16, 16)
    with pytest.raises(PictureError, match=f"--max_image_pixels {least - 1} allows"):
        decode_picture(source, SQUASH, least - 1)


def measure(source: bytes, results: multiprocessing.SimpleQueue) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array = decode_picture(source, PictureSettings(224, 224, "shortest", 3))
    results.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, np.unique(array).tolist()))


def test_photograph_of_108_megapixels_is_used_in_small_memory():
    source = encode(Image.new("L", (12_000, 9_000), 90), "JPEG", quality=50)
    processes = multiprocessing.get_context("fork")
    results = processes.SimpleQueue()
    child = processes.Process(target=measure, args=(source, results))
    child.start()
    kibibytes, levels = results.get()
    child.join()
    assert kibibytes < 64 * 1024
    assert levels == [90]


def frames(kind: str, count: int) -> bytes:
    images = [Image.new("RGB", (24, 24), (number % 256, 0, 0)) for number in range(count)]
    return encode(images[0], kind, save_all=True, append_images=images[1:])


@pytest.mark.parametrize(("kind", "count"), [("GIF", 2000), ("TIFF", 500), ("WEBP", 300)])
def test_many_frames_cost_no_more_than_the_first(kind, count):
    source = frames(kind, count)
    start = time.process_time()
    assert decode_picture(source, SQUASH).max() <= 8
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_absurd_profiles_and_exif_do_not_cost_the_picture(kind, photo):
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    picture = photo(3, SIZE)
    size = 200_000 if kind == "JPEG" else 3_000_000  # a JPEG has no room for more
    odd = encode(picture, kind, icc_profile=b"\xff" * size, exif=exif)
    assert np.abs(decode_picture(odd, SQUASH).astype(int) - decode_picture(encode(picture, kind), SQUASH)).max() <= 1


def test_compressed_nothing_takes_no_more_than_its_pixels(tmp_path):
    """A PNG of a few kB that stands for pixels without end."""
    side = 60_000
    header = png(1, 0, b"", b"", side=side)
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError, match="60000 x 60000 pixels"):
        decode_picture(header, SQUASH)
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
