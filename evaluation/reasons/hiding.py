"""One row, asked with parts of it hidden. Shapes: V variants, M models, C classes, K pictures, H picture side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evaluation.reasons.words import Span, find_read, leave_out
from modeling.batch import pad_texts
from modeling.ensemble import FeaturesOfEach, JointModels
from modeling.text import tokenize_batch

Hidden = Sequence[Collection[int]]  # of V variants the numbers of what is hidden


@dataclass(frozen=True)
class Hiding:
    """How rows are asked: with which tokenizer, in a grid of how many cells per side, how many variants at once."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    grid: int = 7
    batch_size: int = 32


class HiddenRow:
    """What models say of one row as parts of it are hidden.

    The side of which nothing is hidden is encoded once, and every variant of the other side passes its tower once. A
    word is hidden by leaving it out of the text, which is tokenised again: so each model reads a text as it knows them,
    whatever its tokenizer and its positions are. A text without any word left is a missing one, as everywhere. A region
    of a picture takes the picture's mean colour.

    Args:
        batch: of the one row, on the models' device.
        text: of the row, as its tokens were made of it.
    """

    def __init__(self, models: JointModels, batch: Mapping[str, Tensor], text: str, hiding: Hiding) -> None:
        self._models, self._batch, self._text, self._hiding = models, batch, text, hiding
        self._kinds = {kind for model in models for kind in model.towers()}
        self._whole = {kind: models.encode(kind, batch) for kind in ("text", "image")}

    @property
    def reads_text(self) -> bool:
        """Whether the models read the text at all."""
        return "text" in self._kinds

    @cached_property
    def words(self) -> Sequence[Span]:
        """Those that the models read; none where they read no text."""
        if not (self.reads_text and bool(self._batch["text_present"][0])):
            return []
        return find_read(self._text, self._hiding.tokenizer, self._hiding.max_length)

    @cached_property
    def cells(self) -> Tensor | None:
        """The number of the region that each pixel lies in, (K, H, H), counted from the top left of the first picture.

        None where the models see no picture.
        """
        if not ("image" in self._kinds and bool(self._batch["image_present"][0])):
            return None
        side, grid = self._pixels.shape[-1], self._hiding.grid
        lines = torch.arange(side, device=self._pixels.device) * grid // side
        pictures = torch.arange(self._num_pictures, device=lines.device)[:, None, None]
        return (pictures * grid + lines[:, None]) * grid + lines

    @property
    def num_regions(self) -> int:
        """Of all its pictures; 0 where the models see none."""
        return 0 if self.cells is None else len(self.cells) * self._hiding.grid**2

    @cached_property
    def answer(self) -> Tensor:
        """Probabilities (M, C) of the whole row."""
        return self._models.probabilities(self._whole["text"], self._whole["image"])[0]

    def without_words(self, hidden: Hidden) -> Tensor:
        """Probabilities (V, M, C) as these words are hidden."""
        texts = [leave_out(self._text, self.words, each) for each in [(), *hidden]]
        tokens = tokenize_batch(texts, self._hiding.tokenizer, self._hiding.max_length)["input_ids"]
        # Each once; what has no tokens of its own changes nothing, and so exactly nothing.
        numbers = {text: number for number, text in enumerate(dict.fromkeys(map(tuple, tokens)))}
        empty, asked = tuple(self._hiding.tokenizer("")["input_ids"]), list(numbers)[1:]
        found = [self.answer[None]]
        for start in range(0, len(asked), self._hiding.batch_size):
            part = asked[start : start + self._hiding.batch_size]
            input_ids, mask = pad_texts(part, self._hiding.tokenizer.pad_token_id)
            batch = {"input_ids": input_ids, "attention_mask": mask}
            batch["text_present"] = torch.tensor([text != empty for text in part])
            found.append(self._ask("text", {name: value.to(self._device) for name, value in batch.items()}))
        return torch.cat(found)[[numbers[tuple(text)] for text in tokens[1:]]]

    def without_regions(self, hidden: Hidden) -> Tensor:
        """Probabilities (V, M, C) as these regions are hidden."""
        found = [self.answer[None][:0]]
        for start in range(0, len(hidden), self._hiding.batch_size):
            part = hidden[start : start + self._hiding.batch_size]
            found.append(self._ask("image", self.repeat("image", len(part)) | {"pixel_values": self.fill(part)}))
        return torch.cat(found)

    def repeat(self, kind: str, size: int) -> dict[str, Tensor]:
        """The row so many times, of what says whether its text or its pictures are there."""
        names = [name for name in (f"{kind}_present", "picture_mask") if name in self._batch]
        return {name: self._batch[name].expand(size, *self._batch[name].shape[1:]) for name in names}

    def beside(self, kind: str, size: int) -> FeaturesOfEach:
        """The features of the text or the picture as it is, for so many variants of the other side."""
        return [None if each is None else each.expand(size) for each in self._whole[kind]]

    @property
    def _device(self) -> torch.device:
        return self._batch["text_present"].device

    @property
    def _pixels(self) -> Tensor:
        """(1, 3, H, H), or of several pictures (1, K, 3, H, H)."""
        return self._batch["pixel_values"]

    @property
    def _num_pictures(self) -> int:
        return int(self._batch["picture_mask"].sum()) if "picture_mask" in self._batch else 1

    def fill(self, hidden: Hidden) -> Tensor:
        """The row's pictures, (V, 3, H, H) or (V, K, 3, H, H) uint8, with the regions of each variant filled."""
        assert self.cells is not None
        pictures = self._pixels.reshape(-1, *self._pixels.shape[-3:])  # those that are real come first
        colours = pictures.float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8)
        filled = pictures.repeat(len(hidden), 1, 1, 1, 1)
        for variant, numbers in zip(filled, hidden, strict=True):
            covered = torch.isin(self.cells, torch.tensor(sorted(numbers), device=self.cells.device))[:, None]
            real = slice(len(covered))
            variant[real] = torch.where(covered, colours[real], pictures[real])
        return filled.reshape(-1, *self._pixels.shape[1:])

    def _ask(self, kind: str, batch: dict[str, Tensor]) -> Tensor:
        """Probabilities of V variants of one side, beside the other side as it is."""
        size, changed = len(batch[f"{kind}_present"]), self._models.encode(kind, batch)
        if kind == "text":
            return self._models.probabilities(changed, self.beside("image", size))
        return self._models.probabilities(self.beside("text", size), changed)
