"""Corruptions of pictures and texts: the same every time, stronger with the level, and no more than is said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import draw_photo

from evaluation.robustness.corruptions import add_noise, blur_picture, compress_picture, make_generator, mistype

TWEET = "@user what a wonderful morning in the park with all of you #sunny @user http"
CHINESE = "今天天气真好我们去公园玩"


def draw_pixels(seed: int = 0, side: int = 48) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(draw_photo(seed, (side, side))).transpose(2, 0, 1))


def mistype_as(guid: str, text: str = TWEET, percent: float = 100) -> str:
    return mistype(text, percent, make_generator(0, guid, "typos"))


def is_one_error(word: str, other: str) -> bool:
    """Whether one letter was left out, put in or put in another's place, or two neighbours were swapped."""
    while word and other and word[0] == other[0]:
        word, other = word[1:], other[1:]
    while word and other and word[-1] == other[-1]:
        word, other = word[:-1], other[:-1]
    return len(word) + len(other) == 1 or (len(word), len(other)) == (1, 1) or (len(word) == 2 and word[::-1] == other)


def test_generators_differ_by_seed_guid_and_name_alone() -> None:
    assert make_generator(1, "a", "blur").random() == make_generator(1, "a", "blur").random()
    names = [(1, "a", "noise"), (2, "a", "noise"), (1, "b", "noise"), (1, "a", "typos"), (1, "1", "a"), (11, "", "a")]
    assert len({make_generator(*name).random() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("corrupt", "levels"),
    [
        (blur_picture, (1, 2, 4, 8)),
        (lambda pixels, std: add_noise(pixels, std, make_generator(0, "a", "noise")), (4, 8, 16, 32, 64)),
        (compress_picture, (95, 75, 50, 25, 10)),
    ],
)
def test_pictures_get_further_from_the_original_with_the_level(
    corrupt: Callable[[np.ndarray, float], np.ndarray], levels: tuple[float, ...]
) -> None:
    pixels = draw_pixels()
    before = pixels.copy()
    found = [corrupt(pixels, level) for level in levels]
    assert np.array_equal(pixels, before)
    assert all(each.shape == pixels.shape and each.dtype == np.uint8 for each in found)
    assert all(np.array_equal(each, corrupt(pixels, level)) for each, level in zip(found, levels, strict=True))
    errors = [np.abs(each.astype(float) - pixels).mean() for each in found]
    assert errors[0] > 0
    assert errors == sorted(errors)


def test_blur_is_measured_by_the_side_and_keeps_channels_apart() -> None:
    for side in (40, 80):
        pixels = np.zeros((3, side, side), dtype=np.uint8)
        pixels[0, :, side // 2 :] = 255
        blurred = blur_picture(pixels, 5).astype(float)
        assert blurred[1:].max() == 0
        profile = np.diff(blurred[0, side // 2], prepend=0)
        places = np.arange(side)
        centre = (places * profile).sum() / profile.sum()
        std = np.sqrt(((places - centre) ** 2 * profile).sum() / profile.sum())
        assert std == pytest.approx(0.05 * side, rel=0.1)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = np.full((3, 64, 64), 128, dtype=np.uint8)
    for std in (8, 16, 32):
        noise = add_noise(grey, std, make_generator(0, "a", "noise")).astype(float) - 128
        assert noise.std() == pytest.approx(std, rel=0.03)
        assert abs(noise.mean()) < 0.05 * std
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    white = add_noise(np.full((3, 8, 8), 255, dtype=np.uint8), 64, make_generator(0, "a", "noise"))
    assert white.max() == 255  # cut, not wrapped around
    assert white.min() > 20


def test_every_word_gets_one_error_and_names_none() -> None:
    errors = set()
    for number in range(60):
        found = mistype_as(str(number))
        assert found == mistype_as(str(number))
        for word, other in zip(TWEET.split(" "), found.split(" "), strict=True):
            if "@" in word or word == "a":
                assert other == word
            else:
                assert other != word
                assert is_one_error(word, other), (word, other)
                errors.add(len(other) - len(word))
    assert errors == {-1, 0, 1}


def test_typos_keep_blanks_and_marks() -> None:
    text = "  so,\tgood!\n(really)  #nice100% 12345 \u2764\ufe0f "
    for number in range(20):
        found = mistype_as(str(number), text)
        strip = str.maketrans("", "", "abcdefghijklmnopqrstuvwxyz")
        assert found.translate(strip) == text.translate(strip)
    assert mistype_as("a", "") == ""


def test_the_next_key_is_hit_in_the_letters_case() -> None:
    # No two letters differ, so nothing can be swapped: the error is one of the three others.
    assert {mistype_as(str(number), "HH") for number in range(200)} == {
        "H",
        "HHH",
        *(f"{key}H" for key in "GJYUBN"),
        *(f"H{key}" for key in "GJYUBN"),
    }


def test_a_larger_share_changes_more_words_and_those_of_the_smaller_one_alike() -> None:
    text = " ".join(f"word{chr(97 + number % 26)}" for number in range(1000))
    words = text.split(" ")
    previous: dict[int, str] = {}
    for percent in (0, 10, 25, 50, 100):
        found = mistype_as("a", text, percent).split(" ")
        changed = {index: word for index, word in enumerate(found) if word != words[index]}
        assert len(changed) / 1000 == pytest.approx(percent / 100, abs=0.04)
        assert previous.items() <= changed.items()
        previous = changed


def test_chinese_characters_change_places_two_by_two() -> None:
    found = mistype_as("a", f"{CHINESE}哈\u3002ok")
    expected = "".join(CHINESE[index : index + 2][::-1] for index in range(0, len(CHINESE), 2))
    assert found.startswith(f"{expected}哈\u3002")
    assert found != f"{expected}哈\u3002ok"
    half = mistype_as("a", CHINESE * 20, 50)
    assert sorted(half) == sorted(CHINESE * 20)
    assert half not in (CHINESE * 20, expected * 20)
