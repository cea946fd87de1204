"""Which words and which regions of the picture moved an answer: exact differences, by hiding one at a time.

As in Zeiler and Fergus (2014), section 4.2, for pictures, and in Li et al. (2016), "Understanding neural networks
through representation erasure", for words. Legend: N rows, M models, W words, R regions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from torch import Tensor

from data_utils.prepare.pairs import add_row_index
from evaluation.predict.ensemble import Part, evaluate_rows
from evaluation.predict.inference import Batch, Outputs, Step
from evaluation.predict.loaded_run import LoadedRun
from evaluation.reasons.hiding import HiddenRow, Hiding
from evaluation.reasons.words import Span, find_read
from evaluation.scores.metrics import Floats
from modeling.choices import FUSIONS
from modeling.ensemble import JointModels
from modeling.processor import SentimentProcessor
from modeling.text import TEXT_SEPARATOR, clean_text
from run_files.explanations import Reasons, Word

GRID = 7
DECIMALS = 6  # of effects; what is below is of the arithmetic
MAX_TEXT = 20_000  # characters of a text that are kept, or a file of reasons could grow beyond what is read


@dataclass(frozen=True)
class RowParts:
    """What of a row can be hidden: the words that are read, a grid's regions of its pictures; and its text."""

    text: str
    words: Sequence[Span]
    grid: int
    num_pictures: int

    @property
    def num_regions(self) -> int:
        """Of all pictures."""
        return self.num_pictures * self.grid**2


class HideEach:
    """A step, of one row per batch: probabilities "full" (1, M, C), and by how much each part raises them.

    That is "words" (1, M, W C) and "regions" (1, M, R C), with zeros behind those that the row has.
    """

    def __init__(self, hiding: Hiding, texts: Sequence[str], *, num_words: int, num_regions: int) -> None:
        self._hiding, self._texts = hiding, texts
        self._sizes = {"words": num_words, "regions": num_regions}

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        return self.ask(HiddenRow(models, batch, self._texts[int(batch["row_index"][0])], self._hiding))

    def ask(self, row: HiddenRow) -> Outputs:
        """The same of a row that is there."""
        found = {
            "words": row.without_words([[number] for number in range(len(row.words))]),
            "regions": row.without_regions([[number] for number in range(row.num_regions)]),
        }
        effects = {name: lay_out(row.answer - values, self._sizes[name]) for name, values in found.items()}
        return {"full": row.answer[None], **effects}


def lay_out(values: Tensor, size: int) -> Tensor:
    """(V, M, C) -> (1, M, size C), with zeros behind the V."""
    padding = values.new_zeros(size - len(values), *values.shape[1:])
    return torch.cat([values, padding]).transpose(0, 1).flatten(1)[None]


def select_rows(parts: Sequence[Part], guids: Sequence[str]) -> list[Part]:
    """The models that have any of these rows, with them."""
    wanted, found = set(guids), []
    for run, rows in parts:
        numbers = [number for number, guid in enumerate(rows["guid"][:]) if guid in wanted]
        if numbers:
            found.append((run, add_row_index(rows.remove_columns("row_index").select(numbers))))
    return found


def ask_rows(
    parts: Sequence[Part],
    guids: Sequence[str],
    make_step: Callable[[Hiding, Sequence[str], Sequence[str]], Step[JointModels]],
    *,
    batch_size: int,
    accelerator: Accelerator,
    grid: int = GRID,
) -> list[dict[str, Floats]]:
    """What a step says of these rows on average of the models that have them, in the order of the guids.

    Args:
        make_step: of how rows are asked, and their texts and guids; it gets one row at a time.
        batch_size, grid: as for `explain_rows`.
    """

    def make(run: LoadedRun, rows: Dataset) -> Step[JointModels]:
        hiding = Hiding(run.tokenizer, run.config.max_length, min(grid, run.picture.image_size), batch_size)
        return make_step(hiding, rows["text"][:], rows["guid"][:])

    result = evaluate_rows(select_rows(parts, guids), make, batch_size=1, accelerator=accelerator)
    numbers = {guid: number for number, guid in enumerate(result.guids)}
    return [{name: values[numbers[guid]] for name, values in result.outputs.items()} for guid in guids]


def find_parts(parts: Sequence[Part], grid: int) -> dict[str, RowParts]:
    """What can be hidden of each row, by its guid."""
    found: dict[str, RowParts] = {}
    for run, rows in parts:
        reads, cells = FUSIONS[run.config.fusion], min(grid, run.picture.image_size)
        for guid, text, has_text, num_pictures in zip(
            rows["guid"][:], rows["text"][:], rows["text_present"][:], _count_pictures(run, rows), strict=True
        ):
            words: Sequence[Span] = []
            if has_text and "text" in reads:
                words = find_read(text, run.tokenizer, run.config.max_length)
            if guid not in found or len(words) > len(found[guid].words):  # of models with tokenizers of their own
                found[guid] = RowParts(text if "text" in reads else "", words, cells, num_pictures)
    return found


def _count_pictures(run: LoadedRun, rows: Dataset) -> list[int]:
    """How many pictures of each row the model sees."""
    if "image" not in FUSIONS[run.config.fusion]:
        return [0] * len(rows)
    return [len(picture or b"") // (3 * run.picture.image_size**2) for picture in rows["image"][:]]


def explain_rows(parts: Sequence[Part], guids: Sequence[str], *, grid: int = GRID, **options: Any) -> list[Reasons]:
    """Reasons for the answers to these rows, in their order, the same on every rank; ranks share the rows.

    Args:
        parts: models and rows, of which these are; a row that several models have is explained by the mean of them.
        guids: one or more, each once.
        grid: cells per side of a picture.
        options: batch_size, variants of a row per forward; accelerator, which gives the ranks and the precision.
    """
    found = find_parts(select_rows(parts, guids), grid)
    num_words = max(len(each.words) for each in found.values())
    num_regions = max(each.num_regions for each in found.values())

    def make_step(hiding: Hiding, texts: Sequence[str], _: Sequence[str]) -> HideEach:
        return HideEach(hiding, texts, num_words=num_words, num_regions=num_regions)

    rows, names = ask_rows(parts, guids, make_step, grid=grid, **options), parts[0][0].label_names
    return [read_reasons(guid, found[guid], row, names) for guid, row in zip(guids, rows, strict=True)]


def explain_pair(
    models: Sequence[JointModels],
    processor: SentimentProcessor,
    text: str | None,
    picture: bytes | Image.Image | None,
    *,
    grid: int = GRID,
    batch_size: int = 32,
) -> Reasons:
    """Reasons for the answer to one pair in memory, by the mean of all models; its guid is empty.

    Args:
        models: of the same inputs, as `join_models` gives them, on one device.
        processor: theirs.
        text, picture: either may be None.

    Raises:
        InputError: the picture can't be decoded.
    """
    device = next(models[0].parameters()).device
    batch = processor(text=text or "", images=picture).to(device)
    clean = clean_text(text or "", processor.text_cleaning)
    side = batch["pixel_values"].shape[-1]
    hiding = Hiding(processor.tokenizer, processor.max_length, min(grid, side), batch_size)
    outputs: list[Outputs] = []
    with torch.inference_mode():
        for joint in models:
            row = HiddenRow(joint, batch, clean, hiding)
            step = HideEach(hiding, [clean], num_words=len(row.words), num_regions=row.num_regions)
            outputs.append(step.ask(row))
    means = {
        name: torch.cat([each[name] for each in outputs], dim=1)[0].double().mean(dim=0).cpu().numpy()
        for name in outputs[0]
    }
    config = next(iter(models[0])).config
    names = [config.id2label[number] for number in range(config.num_labels)]
    seen = RowParts(clean if row.reads_text else "", row.words, hiding.grid, row.num_regions // hiding.grid**2)
    return read_reasons("", seen, means, names)


def read_reasons(guid: str, seen: RowParts, outputs: Mapping[str, Floats], label_names: Sequence[str]) -> Reasons:
    """What `HideEach` said of a row on average of the models, for its most probable class."""
    number = int(outputs["full"].argmax())
    words, regions = (
        (outputs[name].reshape(-1, len(label_names))[:, number].round(DECIMALS) + 0.0).tolist()  # no -0.0
        for name in ("words", "regions")
    )
    spans = zip(seen.words, words, strict=False)  # behind the row's own there are zeros
    end = seen.words[-1][1] if seen.words else len(seen.text)
    lines = range(0, seen.num_regions, seen.grid)
    return Reasons(
        guid=guid,
        label=label_names[number],
        probability=float(outputs["full"][number]),
        text=seen.text.replace(TEXT_SEPARATOR, "\n").replace("\0", " ")[:MAX_TEXT],
        words=tuple(Word(*span, effect) for span, effect in spans if span[1] <= MAX_TEXT),
        regions=tuple(tuple(regions[start : start + seen.grid]) for start in lines) or None,
        cut_at=end if seen.text[end:].strip() else None,
    )
