"""Rows that are nearly the same: what is near, what isn't, and that neither order nor crowds matter."""

import io

import numpy as np
import pytest
from conftest import draw_photo
from PIL import Image

from data_utils.near.pictures import THUMBNAIL, align, compare_thumbnails, find_near_pictures, shrink
from data_utils.near.texts import find_near_texts, fold_text

TWEET = "Our train to Harwick was late again this morning, what a sorry mess"


def groups_of(texts):
    return find_near_texts(texts).groups(len(texts)).tolist()


def to_pixels(picture, side=224):
    return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def recompress(picture, quality):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "recompressed": lambda picture: recompress(picture, 30),
    "smaller": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cut": lambda picture: picture.crop((14, 6, picture.width - 8, picture.height - 10)),
    "cut, smaller and recompressed": lambda picture: recompress(
        picture.crop((10, 10, 310, 232)).resize((160, 120)), 60
    ),
}


@pytest.mark.parametrize(
    "other",
    [
        "RT @someone: Our train to Harwick was late again this morning, what a sorry mess https://t.co/x1",
        "our TRAIN to harwick was late again this morning what a sorry mess!!! #delay",
        "Our trian to Harwick was late again this morning, what a sorry mess",
        "Our train to Harwick was late again this morning, what a sorry…",
    ],
)
def test_text_with_small_changes_is_near(other):
    assert groups_of([TWEET, "my garden is in bloom and the bees are back", other]) == [0, 1, 0]


@pytest.mark.parametrize(
    "other", ["", "#mess", "Our bus to Elmstead was early for once, such a joy", "@a @b https://t.co/z"]
)
def test_other_text_is_not_near(other):
    assert groups_of([TWEET, other]) == [0, 1]


def test_short_texts_are_near_only_where_they_are_equal():
    assert groups_of(["so sad!", "So sad", "so mad", "so sad :("]) == [0, 0, 1, 0]


def test_a_crowd_of_near_texts_is_one_group_of_few_pairs():
    texts = [f"{TWEET} and this is number {number}" for number in range(400)]

    pairs = find_near_texts(texts)

    assert len(set(pairs.groups(400).tolist())) == 1
    assert len(pairs.first) < 100 * 400


@pytest.mark.parametrize(
    "text", ["\0" * 50, "\ud800" * 30, "\u202e" * 99, "א" * 40, "🎉" * 30, "字" * 100_000, " \n\t "]
)
def test_hostile_text_is_compared(text):
    assert fold_text(text) == fold_text(fold_text(text))
    assert groups_of([text, TWEET, text])[1] not in (groups_of([text, TWEET, text])[0],)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_picture_is_near(change):
    photos = [draw_photo(seed, (320, 240)) for seed in range(6)]
    changed = CHANGES[change](photos[2])

    pairs = compare_thumbnails(np.stack([shrink(to_pixels(each)) for each in (*photos, changed)]))

    assert [(*map(int, each),) for each in zip(pairs.first, pairs.second, strict=True)] == [(2, 6)]


def test_pictures_of_one_colour_and_other_colours_are_not_near():
    photo = to_pixels(draw_photo(1, (320, 240)))
    flat = np.full((3, 224, 224), 90, np.uint8)

    assert len(compare_thumbnails(np.stack([shrink(each) for each in (flat, flat, photo, photo[::-1])])).first) == 0


def test_alignment_of_a_picture_with_itself_is_whole():
    thumbnails = np.stack([shrink(to_pixels(draw_photo(seed))) for seed in range(3)]).astype(np.float32)

    assert thumbnails.shape == (3, 3, THUMBNAIL, THUMBNAIL)
    assert align(thumbnails, thumbnails) == pytest.approx(1)


@pytest.mark.parametrize("side", [1, 7, 32, 50])
def test_thumbnail_of_any_size_keeps_the_mean(side):
    pixels = np.random.default_rng(side).integers(0, 256, (3, side, side), dtype=np.uint8)

    assert shrink(pixels).mean() == pytest.approx(pixels.mean(), abs=1)


def test_near_pictures_of_a_data_set(make_pairs, load, photo):
    first = photo(1, (320, 240))
    rows = [("1", "positive", "a", first), ("2", "positive", "b", first), ("3", "negative", "c", None)]
    rows += [("4", "negative", "d", CHANGES["cut"](first)), ("5", "negative", "e", photo(2, (320, 240)))]

    groups = find_near_pictures(load(make_pairs(rows)).dataset).groups(5).tolist()

    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups)) == 3
