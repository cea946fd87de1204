"""Single rows in a report: misjudged ones and those where text and picture disagree, with all that is known of them.

Legend: N judged rows, C classes, S side of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from data_utils.page.shown import Figure, encode_thumbnail
from data_utils.sources.label_forms import name_labels
from evaluation.reasons.overlay import draw_regions
from evaluation.report.figures import INPUT_TITLES
from evaluation.report.judged import Judged
from evaluation.report.slices import Slice, compare_slices
from evaluation.scores.metrics import Floats
from run_files.explanations import Reasons
from run_files.predictions_csv import PredictionTable
from run_files.row_answers import RowAnswers

SMALL = 56  # pixels a side of a neighbour's picture
# Pictures that are measured, of more rows the first; and that are held in memory at once.
MAX_MEASURED, AT_A_TIME = 20_000, 256


@dataclass(frozen=True)
class ShownRows:
    """The data of the judged rows beside what the models say of them; `answers` are None before a pass was made."""

    judged: Judged
    rows: Dataset
    side: int
    answers: RowAnswers | None
    reasons: Mapping[str, Reasons] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, int]:
        """Of each guid its row in the data."""
        return {guid: place for place, guid in enumerate(self.rows["guid"][:])}

    @cached_property
    def texts(self) -> list[str]:
        """All rows'."""
        return self.rows.select_columns(["text"])["text"][:]

    @cached_property
    def conflicts(self) -> Floats:
        """(N,) how far the answers by text alone and by picture alone are apart: half the sum of the differences of
        probabilities, 0 to 1; of a regression the difference of the numbers."""
        if self.answers is None:
            return np.zeros(len(self.judged.table.guids))
        text, image = (self.answers.alone[name].probabilities for name in ("text_only", "image_only"))
        scale = 1 if self.judged.task_name == "regression" else 2
        return np.abs(text - image).sum(axis=1) / scale

    def choose(self, most: int) -> list[int]:
        """Numbers of the rows that are shown: the misjudged ones, the surest (of numbers the worst) first, and a
        quarter as many of those with the greatest conflict."""
        wrong = np.flatnonzero(self.judged.is_wrong)
        chosen = wrong[np.argsort(-self.confidence[wrong], kind="stable")][:most].tolist()
        if self.answers is not None:
            told = set(chosen)
            most_apart = np.argsort(-self.conflicts, kind="stable")[: max(1, most // 4)].tolist()
            chosen += [row for row in most_apart if row not in told and self.conflicts[row] > 0]
        return [row for row in chosen if self.judged.table.guids[row] in self.places]

    def describe(self, most: int) -> Iterator[dict[str, Any]]:
        """What the page shows of the rows of `choose`."""
        table = self.judged.table
        labels, given = (name_labels(each, table.label_names) for each in (table.labels, table.answers))
        for row in self.choose(most):
            guid = table.guids[row]
            yield {
                **{"guid": guid, "label": labels[row], "answer": given[row]},
                "is_wrong": bool(self.judged.is_wrong[row]),
                **{"text": self.texts[self.places[guid]], "picture": self.thumbnail(guid)},
                **{"confidence": float(self.confidence[row]), "conflict": float(self.conflicts[row])},
                "inputs": list(self._list_inputs(row)),
                "neighbours": list(self._list_neighbours(guid)),
                "reasons": self._describe_reasons(guid),
            }

    @cached_property
    def confidence(self) -> Floats:
        """(N,) the largest probability; of a regression the error."""
        is_number = self.judged.task_name == "regression"
        return self.judged.scores if is_number else self.judged.table.probabilities.max(axis=1)

    def _list_inputs(self, row: int) -> Iterator[list[object]]:
        """What both, text alone and picture alone say: the answer, its probability, and the label's."""
        alone = {} if self.answers is None else {name: self.answers.alone[name] for name in ("text_only", "image_only")}
        for name, table in {"full": self.judged.table, **alone}.items():
            answer = name_labels(table.answers[row : row + 1], table.label_names)[0]
            yield [INPUT_TITLES.get(name, "both"), answer, *self._probabilities(table, row)]

    def _probabilities(self, table: PredictionTable, row: int) -> list[float]:
        if self.judged.task_name != "single_label":
            return []
        return [float(table.probabilities[row, number]) for number in (table.answers[row], table.labels[row])]

    def _list_neighbours(self, guid: str) -> Iterator[dict[str, Any]]:
        for each in () if self.answers is None else self.answers.neighbours.get(guid, ()):
            if each.guid in self.places:
                text, picture = self.texts[self.places[each.guid]], self.thumbnail(each.guid, SMALL)
                yield {**each._asdict(), "text": text, "picture": picture}

    def _describe_reasons(self, guid: str) -> dict[str, Any] | None:
        """The pieces of the text with the strength of each, -3 to 3, the heat map, and what is explained."""
        found = self.reasons.get(guid)
        if found is None:
            return None
        pieces = [(piece, round(3 * share)) for piece, _, share in found.pieces()]
        heat, image = None, self.rows[self.places[guid]]["image"]
        if found.regions is not None and image is not None:
            first = found.regions[: len(found.regions[0])]  # of several pictures, one below the other
            heat = encode_thumbnail(draw_regions(np.moveaxis(self._decode(image), 0, -1), first))
        return {"label": found.label, "pieces": pieces, "heat": heat}

    def thumbnail(self, guid: str, side: int | None = None) -> str | None:
        """The row's first picture, as the model sees it; None without one."""
        image = self.rows[self.places[guid]]["image"]
        return None if image is None else encode_thumbnail(self._decode(image), *([side] if side else []))

    def _decode(self, image: bytes) -> np.ndarray:
        """(3, S, S), the first of several."""
        return np.frombuffer(image, dtype=np.uint8, count=3 * self.side**2).reshape(3, self.side, self.side)

    def compare_slices(self) -> list[Slice]:
        """Of the judged rows that are in the data."""
        kept = [row for row, guid in enumerate(self.judged.table.guids) if guid in self.places]
        places = [self.places[self.judged.table.guids[row]] for row in kept]
        measures = np.full((2, len(kept)), np.nan)
        images = self.rows.select_columns(["image"]).select(places[:MAX_MEASURED])
        for start in range(0, len(images), AT_A_TIME):
            for number, each in enumerate(images[start : start + AT_A_TIME]["image"], start=start):
                if each is not None:
                    grey = self._decode(each)[:, ::4, ::4].mean(axis=0)
                    measures[:, number] = grey.mean(), grey.std()
        pictures = dict(zip(("brightness of the picture (0 to 255)", "contrast of the picture"), measures, strict=True))
        is_share = self.judged.task_name != "regression"
        texts = [self.texts[place] for place in places]
        return compare_slices(self.judged.scores[kept], texts, pictures, is_share=is_share)

    def tabulate_conflicts(self) -> list[list[object]]:
        """Of the rows where text and picture alone give different answers: how many, and who is right."""
        if self.answers is None or self.judged.task_name == "regression":
            return []
        text, image = (self.answers.alone[name] for name in ("text_only", "image_only"))
        known, n = self.judged.table.labels, len(self.judged.table.guids)
        right = {
            name: (each == known).reshape(n, -1).all(axis=1)
            for name, each in (("text", text.answers), ("image", image.answers), ("both", self.judged.table.answers))
        }
        differ = (text.answers != image.answers).reshape(n, -1).any(axis=1)
        kinds = {
            "they agree": ~differ,
            "they differ, text is right": differ & right["text"],
            "they differ, picture is right": differ & right["image"],
            "they differ, neither is right": differ & ~right["text"] & ~right["image"],
        }
        return [
            [name, int(rows.sum()), Figure(rows.mean()), Figure(right["both"][rows].mean() if rows.any() else None)]
            for name, rows in kinds.items()
        ]
