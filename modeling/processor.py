"""A pair as anybody has it, a text and a picture, to the inputs of the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .batch import pad_texts, stack_pictures
from .choices import MAX_PIXELS
from .configuration import SentimentConfig
from .errors import InputError, check_choice
from .pictures import PictureError, PictureSettings, decode_picture
from .text import TEXT_SEPARATOR, clean_text, tokenize_batch

# A text, or the texts of several columns; a file's path or bytes, or a picture of Pillow's, or several of them.
Text = str | list[str | None] | tuple[str | None, ...] | None
Picture = str | Path | bytes | Image.Image
Row = dict[str, Any]
COLUMNS = ("text", "image")


class SentimentProcessor(ProcessorMixin):
    """Cleans texts and makes tokens of them, decodes pictures and resizes them once, to uint8, as in training.

    Its settings, in processor_config.json, are those of the model's configuration; `from_config` takes them there.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_cleaning: str = "report",
        max_length: int = 77,
        picture: dict[str, Any] | None = None,
        max_image_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(tokenizer)
        self.text_cleaning, self.max_length, self.picture = text_cleaning, max_length, picture
        self.max_image_pixels = max_image_pixels

    @classmethod
    def from_config(
        cls, config: SentimentConfig, tokenizer: PreTrainedTokenizerBase, max_image_pixels: int = MAX_PIXELS
    ) -> SentimentProcessor:
        """The processor of a model with this configuration."""
        return cls(tokenizer, config.text_cleaning, config.max_length, config.picture, max_image_pixels)

    def __call__(self, text: Any = None, images: Any = None, *, return_tensors: str = "pt") -> BatchFeature:
        """The inputs of the model (see `Inputs` in batch.py) of B rows.

        Args:
            text: a text; or a list of B, None for none.
            images: a picture, or several of the one text; or a list of B, each a picture, a list of several, or None.
            return_tensors: pt; there are no others.

        Raises:
            InputError: a picture can't be read, or there aren't as many texts as pictures.
        """
        check_choice("return_tensors", return_tensors, ("pt",))
        rows = to_rows(text, images)
        return self.collate([self.prepare(row) for row in (rows if isinstance(rows, list) else [rows])])

    def prepare(self, row: Mapping[str, Any]) -> Row:
        """One row {text, image}, both of them optional: its tokens and its pixels, for `collate`."""
        if unknown := [name for name in row if name not in COLUMNS]:
            raise InputError(f"Got a row with {unknown[0]!r}; a row has {' and '.join(COLUMNS)}.")
        text, pictures = self._clean(row.get("text")), row.get("image")
        pictures = pictures if isinstance(pictures, list | tuple) else [pictures]
        pixels = b"".join(self._decode(picture) for picture in pictures if picture is not None)
        tokens = tokenize_batch([text], self.tokenizer, self.max_length)["input_ids"][0]
        return {"input_ids": tokens, "text_present": bool(text), "image": pixels or None}

    def collate(self, rows: Sequence[Row]) -> BatchFeature:
        """Stack what `prepare` gave for B rows."""
        input_ids, attention_mask = pad_texts([row["input_ids"] for row in rows], self.tokenizer.pad_token_id)
        pictures = [row["image"] for row in rows]
        return BatchFeature(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                **stack_pictures(pictures, self._settings.image_size),
                "text_present": tensor([row["text_present"] for row in rows]),
                "image_present": tensor([picture is not None for picture in pictures]),
            }
        )

    @property
    def _settings(self) -> PictureSettings:
        return PictureSettings(**self.picture or {})

    def _clean(self, text: Text) -> str:
        cells = list(text) if isinstance(text, list | tuple) else [text]
        if other := [cell for cell in cells if not isinstance(cell, str | None)]:
            raise InputError(f"Got {other[0]!r} as a text, which is a {type(other[0]).__name__}; give a str, or None.")
        return clean_text(TEXT_SEPARATOR.join(cell or "" for cell in cells) if any(cells) else "", self.text_cleaning)

    def _decode(self, picture: Picture) -> bytes:
        source: bytes | Image.Image
        if isinstance(picture, bytes | Image.Image):
            source = picture
        elif isinstance(picture, str | Path):
            if str(picture).lower().startswith(("http://", "https://")):
                raise InputError(f"Got the address {picture}; no picture is fetched: give its bytes, or a file's path.")
            try:
                source = Path(picture).read_bytes()
            except (OSError, ValueError) as error:
                raise InputError(f"The picture {str(picture)[:200]!r} can't be read: {error}.") from error
        else:
            kind = type(picture).__name__
            raise InputError(f"Got a picture that is a {kind}; give a path, bytes, or a picture of Pillow's.")
        try:
            return decode_picture(source, self._settings, self.max_image_pixels).tobytes()
        except PictureError as error:
            name = repr(str(picture)) if isinstance(picture, str | Path) else "of these bytes"
            raise InputError(f"The picture {name} can't be decoded: {error}.") from error


def to_rows(text: Any, image: Any) -> Row | list[Row]:
    """{text, image}: one row of one text; or a list of rows of a list of texts, or of a list of pictures alone.

    Raises:
        InputError: there aren't as many texts as pictures.
    """
    if not isinstance(text, list) and (text is not None or not isinstance(image, list)):
        return {"text": text, "image": image}
    texts = text if isinstance(text, list) else [None] * len(image)
    images = [None] * len(texts) if image is None else image
    if not isinstance(images, list) or len(images) != len(texts):
        count = len(images) if isinstance(images, list) else 1
        raise InputError(f"Got {len(texts)} texts and {count} pictures; give lists of one length, with None for none.")
    return [{"text": each, "image": picture} for each, picture in zip(texts, images, strict=True)]


SentimentProcessor.register_for_auto_class()
