"""Values as a page shows them: hostile texts, numbers with their intervals, small pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_utils.console.tables import format_interval

SHORT, LONG = 280, 4000  # characters of a text that are seen at once, and that are in the page at all
THUMBNAIL = 112  # pixels a side
# What isn't seen or turns the direction of writing, but for tab and line feed; halves of characters have no UTF-8.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with [U+202E] and the like for characters that a reader doesn't see or that turn what stands around."""
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


class Shown:
    """A text of the data, cut: `start` is its first part, `rest` what may be unfolded, `more` the number left out."""

    def __init__(self, text: object, short: int = SHORT, long: int = LONG) -> None:
        whole = str(text)
        self.start, self.rest, self.more = whole[:short], whole[short:long], max(0, len(whole) - long)


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval, as a cell of a table; None where it isn't defined."""

    value: float | None
    interval: Sequence[float] | None = None
    std: float | None = None
    digits: int = 3

    def __str__(self) -> str:
        if self.value is None or self.interval is not None or self.std is not None:
            return format_interval(self.value, self.interval, std=self.std)
        return f"{self.value:.{self.digits}f}"


def encode_thumbnail(pixels: NDArray[np.uint8], side: int = THUMBNAIL) -> str:
    """A data: URI of a small WebP of pixels (3, H, W) or (H, W, 3), its longer side at most `side`.

    Only pixels come in, which `modeling.pictures` has decoded: nothing else of a picture file reaches a page.
    """
    channels_last = pixels if pixels.shape[-1] == 3 else np.moveaxis(pixels, 0, -1)
    picture, buffer = Image.fromarray(np.ascontiguousarray(channels_last)), io.BytesIO()
    picture.thumbnail((side, side))
    picture.save(buffer, "WEBP", quality=60, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
