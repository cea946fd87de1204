"""Pictures in another light: the same scene, upright and RGB."""

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_utils.augment.picture import change_picture
from modeling.pictures import PictureError, decode_picture


def to_bytes(picture, **options):
    target = io.BytesIO()
    picture.save(target, **options)
    return target.getvalue()


def test_picture_changes_are_light(photo, small_picture):
    source = to_bytes(photo(3, (120, 90)), format="JPEG", quality=95)
    before = decode_picture(source, small_picture).astype(float)
    for seed in range(20):
        changed, told = change_picture(source, random.Random(seed))
        assert [change.split()[0] for change in told] == ["brightness", "contrast", "crop"]
        after = decode_picture(changed, small_picture).astype(float)
        assert 2 < np.abs(after - before).mean() < 60
        assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.7
    assert change_picture(source, random.Random(1)) == change_picture(source, random.Random(1))


def test_pictures_are_mirrored_only_when_asked_and_then_every_second(photo, small_picture):
    picture = photo(3, (120, 90))
    source, mirror = (to_bytes(each, format="PNG") for each in (picture, ImageOps.mirror(picture)))
    told = [change_picture(source, random.Random(seed), flip=True) for seed in range(40)]
    assert 10 < sum("flip" in changes for _, changes in told) < 30
    for changed, changes in told:
        after = decode_picture(changed, small_picture).ravel()
        likeness = [np.corrcoef(after, decode_picture(each, small_picture).ravel())[0, 1] for each in (source, mirror)]
        assert (likeness[1] > likeness[0]) == ("flip" in changes)
    assert not any("flip" in change_picture(source, random.Random(seed))[1] for seed in range(40))


@pytest.mark.parametrize("mode", ["L", "1", "RGBA", "P", "I;16", "CMYK"])
def test_pictures_of_all_modes_become_rgb(photo, mode):
    picture = photo(1).convert("L").convert("I;16") if mode == "I;16" else photo(1).convert(mode)
    changed, _ = change_picture(to_bytes(picture, format="TIFF"), random.Random(0))
    assert Image.open(io.BytesIO(changed)).mode == "RGB"


def test_turned_pictures_stand_upright_and_tiny_ones_stay_pictures(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    changed, _ = change_picture(to_bytes(photo(1, (80, 40)), format="JPEG", exif=exif), random.Random(0))
    width, height = Image.open(io.BytesIO(changed)).size
    assert width < 41 < 70 < height
    tiny, _ = change_picture(to_bytes(Image.new("RGB", (1, 1)), format="PNG"), random.Random(0))
    assert Image.open(io.BytesIO(tiny)).size == (1, 1)


@pytest.mark.parametrize("source", [b"", b"no picture"])
def test_what_is_no_picture_is_refused(source):
    with pytest.raises(PictureError):
        change_picture(source, random.Random(0))


def test_picture_that_no_jpeg_can_hold_is_refused():
    target = io.BytesIO()
    Image.new("RGB", (72_000, 8)).save(target, format="PNG")
    with pytest.raises(PictureError, match="cannot be written as JPEG"):
        change_picture(target.getvalue(), random.Random(0))
