"""Pictures and texts made worse on purpose, the same way every time: blur, noise, JPEG, typing errors."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

T = TypeVar("T")
Pixels = NDArray[np.uint8]

# Letters of scripts that put no spaces between words: kana and Chinese characters.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNIT = re.compile(rf"([{_UNSPACED}]{{2}})|[^\s{_UNSPACED}]+")
# A key, and those that it touches: each row of keys is set half a key to the right of the one above.
_KEYS = (
    "qwa wqeas ewrsd retdf tryfg ytugh uyihj iuojk oipkl pol asqwz sadwezx dsferxc fdgrtcv gfhtyvb hgjyubn jhkuinm "
    "kjliom lkop zxas xzcsd cxvdf vcbfg bvngh nbmhj mnjk"
)
_NEIGHBOURS = {keys[0]: keys[1:] for keys in _KEYS.split()}


def make_generator(seed: int, guid: str, name: str) -> np.random.Generator:
    """Random numbers that depend on these three alone: not on the row's place, its batch or its rank."""
    digest = hashlib.sha256(f"{seed}\0{name}\0{guid}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def blur_picture(pixels: Pixels, percent: float) -> Pixels:
    """Gaussian blur with a radius (one standard deviation) of `percent` % of the side; pixels (3, S, S) uint8."""
    return _from_image(_to_image(pixels).filter(ImageFilter.GaussianBlur(percent / 100 * pixels.shape[-1])))


def add_noise(pixels: Pixels, std: float, generator: np.random.Generator) -> Pixels:
    """Gaussian noise of `std` grey levels, for each pixel and channel apart, cut at 0 and 255; (3, S, S) uint8."""
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)
    return np.rint(pixels + std * noise).clip(0, 255).astype(np.uint8)


def compress_picture(pixels: Pixels, quality: float) -> Pixels:
    """Through JPEG and back at Pillow's `quality` (1 to 95), colours at half the resolution; (3, S, S) uint8."""
    buffer = io.BytesIO()
    _to_image(pixels).save(buffer, format="JPEG", quality=round(quality), subsampling="4:2:0")
    with Image.open(buffer) as image:
        return _from_image(image)


def mistype(text: str, percent: float, generator: np.random.Generator) -> str:
    """Change one letter in about `percent` % of the words: two swapped, one left out, doubled, or the next key hit.

    Where a script has no spaces, two characters at a time stand for a word and change places. Spaces stay, and so do
    words with fewer than two letters and everything with an @ in it: names were made @user by the cleaning. With
    generators that begin alike, the words changed at one share are changed in the same way at every larger one.
    """

    def change(unit: re.Match[str]) -> str:
        chance, *choices = generator.random(4)
        if 100 * chance >= percent:
            return unit[0]
        return unit[0][::-1] if unit[1] else _mistype_word(unit[0], *choices)

    return _UNIT.sub(change, text)


def _mistype_word(word: str, kind: float, place: float, key: float) -> str:
    """The word with one error; kind, place and key in [0, 1) choose which, where, and the key that was hit."""
    letters = [index for index, letter in enumerate(word) if letter.isalpha()]
    if "@" in word or len(letters) < 2:
        return word
    pairs = [index for index in letters[:-1] if word[index + 1].isalpha() and word[index] != word[index + 1]]
    keys = [index for index in letters if word[index].lower() in _NEIGHBOURS]
    all_places = {"drop": letters, "double": letters, "swap": pairs, "slip": keys}
    places = {error: indices for error, indices in all_places.items() if indices}
    error = _pick(list(places), kind)
    index = _pick(places[error], place)
    before, letter, after = word[:index], word[index], word[index + 1 :]
    if error == "drop":
        return before + after
    if error == "double":
        return before + 2 * letter + after
    if error == "swap":
        return before + after[0] + letter + after[1:]
    hit = _pick(_NEIGHBOURS[letter.lower()], key)
    return before + (hit.upper() if letter.isupper() else hit) + after


def _pick(choices: Sequence[T], number: float) -> T:
    return choices[int(number * len(choices))]


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _from_image(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
