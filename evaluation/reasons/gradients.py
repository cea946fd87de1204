"""A second opinion: integrated gradients (Sundararajan et al. 2017) by captum, which is imported here alone.

What they give of an answer's probability adds up to its difference from that of a text of padding, or of a picture of
one colour. Legend: M models, W words, R regions, K pictures, H picture side, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor

from evaluation.predict.ensemble import Part
from evaluation.predict.inference import Batch, Outputs
from evaluation.reasons.explaining import ask_rows
from evaluation.reasons.faithfulness import list_effects
from evaluation.reasons.hiding import HiddenRow, Hiding
from evaluation.scores.metrics import Floats
from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels
from modeling.text import tokenize_batch
from run_files.explanations import Reasons

NUM_STEPS = 20


class IntegrateGradients:
    """A step, of one row per batch: "words" (1, M, W) and "regions" (1, M, R), with zeros behind the row's own.

    Args:
        classes: of each row the number of the class that is explained.
    """

    def __init__(
        self, hiding: Hiding, texts: Sequence[str], classes: Sequence[int], *, num_words: int, num_regions: int
    ) -> None:
        self._hiding, self._texts, self._classes = hiding, texts, classes
        self._sizes = {"words": num_words, "regions": num_regions}

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        number = int(batch["row_index"][0])
        found: dict[str, list[Tensor]] = {name: [] for name in self._sizes}
        for model in models:
            row = HiddenRow(JointModels([model]), batch, self._texts[number], self._hiding)
            with torch.enable_grad():
                effects = {
                    "words": self._of_words(model, row, batch, self._texts[number], self._classes[number]),
                    "regions": self._of_regions(model, row, batch, self._classes[number]),
                }
            for name, values in effects.items():
                padded = values.new_zeros(self._sizes[name])
                padded[: len(values)] = values
                found[name].append(padded)
        return {name: torch.stack(values)[None] for name, values in found.items()}

    def _of_words(self, model: SentimentClassifier, row: HiddenRow, batch: Batch, text: str, number: int) -> Tensor:
        if not row.words:
            return torch.zeros(0)

        def ask(input_ids: Tensor, mask: Tensor) -> Tensor:
            size = len(input_ids)
            inputs = {"input_ids": input_ids, "attention_mask": mask, **row.repeat("text", size)}
            (image,) = row.beside("image", size)
            return model.probabilities(model.fuse(model.encode("text", inputs), image))[:, number]

        tower, ids, tokenizer = model.towers()["text"], batch["input_ids"], self._hiding.tokenizer
        of_words = self._words_of_tokens(text, row, ids[0].tolist())
        baseline = torch.where(of_words >= 0, tokenizer.pad_token_id, ids[0].cpu())[None].to(ids)
        layer = LayerIntegratedGradients(ask, tower.encoder.get_input_embeddings())
        found = layer.attribute(
            ids,
            baseline,
            additional_forward_args=batch["attention_mask"],
            n_steps=NUM_STEPS,
            internal_batch_size=self._hiding.batch_size,
        )
        tokens = found[0, : len(of_words)].sum(dim=-1).float().cpu()
        return torch.zeros(len(row.words)).index_add(0, of_words[of_words >= 0], tokens[of_words >= 0])

    def _words_of_tokens(self, text: str, row: HiddenRow, tokens: list[int]) -> Tensor:
        """The number of the word that each token is of, (L,); -1 of those that stand around the text."""
        prefixes = tokenize_batch(
            [text[:end] for end in (0, *(end for _, end in row.words))], self._hiding.tokenizer, self._hiding.max_length
        )["input_ids"]
        numbers, start = torch.full((len(tokens),), -1), 0
        for word, prefix in enumerate(prefixes, start=-1):
            equal = (a == b for a, b in zip(prefix, tokens, strict=False))
            end = sum(takewhile(bool, equal))
            numbers[start:end], start = word, max(start, end)
        return numbers

    def _of_regions(self, model: SentimentClassifier, row: HiddenRow, batch: Batch, number: int) -> Tensor:
        if row.cells is None:
            return torch.zeros(0)

        def ask(pixels: Tensor) -> Tensor:
            size = len(pixels)
            (text,) = row.beside("text", size)
            vector, tokens = model.towers()["image"](pixel_values=pixels.flatten(0, -4))
            image = model.align("image", vector, tokens, row.repeat("image", size))
            return model.probabilities(model.fuse(text, image))[:, number]

        pictures = [batch["pixel_values"], row.fill([range(row.num_regions)])]
        whole, baseline = (model.normalize(each) for each in pictures)
        found = IntegratedGradients(ask).attribute(
            whole, baseline, n_steps=NUM_STEPS, internal_batch_size=self._hiding.batch_size
        )
        pixels = found.flatten(0, -4).sum(dim=1)[: len(row.cells)].float()  # (K, H, H)
        return torch.zeros(row.num_regions).index_add(0, row.cells.flatten().cpu(), pixels.flatten().cpu())


def integrate_rows(parts: Sequence[Part], rows: Sequence[Reasons], **options: Any) -> list[Reasons]:
    """The same reasons with the effects that integrated gradients give to the same words and regions.

    Args: as of `explain_rows`, which gave the rows.
    """
    names = parts[0][0].label_names
    classes = {each.guid: names.index(each.label) for each in rows}
    sizes = {f"num_{side}": max(len(list_effects(each, side)) for each in rows) for side in ("words", "regions")}

    def make_step(hiding: Hiding, texts: Sequence[str], guids: Sequence[str]) -> IntegrateGradients:
        return IntegrateGradients(hiding, texts, [classes[guid] for guid in guids], **sizes)

    said = ask_rows(parts, [*classes], make_step, **options)
    return [replace_effects(each, values["words"], values["regions"]) for each, values in zip(rows, said, strict=True)]


def replace_effects(reasons: Reasons, words: Floats, regions: Floats) -> Reasons:
    """The same with other effects of its words (W,) and regions (R,), behind which there may be more."""
    grid = reasons.regions and np.shape(reasons.regions)
    return replace(
        reasons,
        words=tuple(replace(word, effect=float(effect)) for word, effect in zip(reasons.words, words, strict=False)),
        regions=grid and tuple(map(tuple, regions[: grid[0] * grid[1]].reshape(grid).tolist())),
    )
