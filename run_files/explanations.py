"""Why a model gave its answers: RUN/explanations_{split}.json. Legend: g cells per side of a picture, K pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from data_utils.system.schema import COPY_AGAIN, read_json
from modeling.errors import InputError
from run_files.output import write_json
from run_files.schema import Count, Name


@dataclass(frozen=True)
class Word:
    """The characters start to end of a text, and by how much the answer's probability falls without them."""

    start: Count
    end: Count
    effect: float


@dataclass(frozen=True)
class Reasons:
    """What moved the answer to one row.

    Attributes:
        guid: of the row.
        label: the class that is explained: the most probable one.
        probability: of that class, the mean of the models. Of a regression the number that was answered, and effects
            are in its unit.
        text: as the models read it, cleaned; texts of several columns are lines. Empty where they read none.
        words: of that text, in their order. An effect above 0: the word speaks for the class; below: against it.
        regions: effects of the cells of a grid over the picture, as the model sees it (resized, cropped), in rows from
            the top: (g, g); of K pictures one below the other (K g, g). None where the model saw no picture.
        cut_at: the character at which the models stop reading the text: words from there on have the effect 0. None
            where they read all of it.
    """

    guid: Name
    label: Name
    probability: float
    text: str
    words: tuple[Word, ...]
    regions: tuple[tuple[float, ...], ...] | None
    cut_at: Count | None = None

    def pieces(self) -> Iterator[tuple[str, float, float]]:
        """The text in pieces: each word, its effect, that as a share of the largest, -1 to 1; both 0 between words."""
        largest, end = max((abs(word.effect) for word in self.words), default=0.0) or 1.0, 0
        for word in self.words:
            yield self.text[end : word.start], 0.0, 0.0
            yield self.text[word.start : word.end], word.effect, word.effect / largest
            end = word.end
        yield self.text[end:], 0.0, 0.0


class MethodFigures(TypedDict):
    """Of one order of hiding."""

    curve: list[float]
    area: float
    area_interval: tuple[float, ...]
    below_random: float
    below_random_interval: tuple[float, ...]


class ExplanationsFile(TypedDict):
    """explanations_{split}.json; `docs/evaluation.md` tells what the figures are."""

    split: Name
    rows: list[Reasons]
    gradients: list[Reasons] | None
    faithfulness: dict[str, dict[str, int | MethodFigures]]
    cost: dict[str, float]


def explanations_file(folder: Path, split: str) -> Path:
    """Where the reasons for the rows of a part lie in a run folder."""
    return folder / f"explanations_{split}.json"


def write_explanations(
    path: Path, rows: Sequence[Reasons], split: str, *, gradients: Sequence[Reasons] | None, **figures: Any
) -> None:
    """Write the reasons for rows, those of integrated gradients, if there are any, and figures about them."""
    others = None if gradients is None else [asdict(row) for row in gradients]
    write_json(path, {"split": split, **figures, "rows": [asdict(row) for row in rows], "gradients": others})


def read_explanations(path: Path) -> tuple[list[Reasons], dict[str, Any]]:
    """The reasons for rows, and all else that was written with them, see `ExplanationsFile`.

    `InputError` for a damaged file, FileNotFoundError without one.
    """
    content = read_json(path, ExplanationsFile)
    for name in ("rows", "gradients"):
        content[name] = content[name] and [_read(path, row) for row in content[name]]
    return content.pop("rows"), content


def _read(path: Path, row: dict[str, Any]) -> Reasons:
    words, regions, end = tuple(Word(**word) for word in row["words"]), row["regions"], 0
    for word in words:
        if not end <= word.start <= word.end <= len(row["text"]):
            raise InputError(f"{path} has words of {row['guid'][:80]!r} that aren't in its text; {COPY_AGAIN}.")
        end = word.end
    if regions is not None:
        if not regions or any(len(line) != len(regions[0]) or not line for line in regions):
            raise InputError(f"{path} has regions of {row['guid'][:80]!r} that are no grid; {COPY_AGAIN}.")
        regions = tuple(map(tuple, regions))
    return Reasons(**row | {"words": words, "regions": regions})
