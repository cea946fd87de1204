"""What a report asks the models of each row beyond its answer, kept so that the next report needs no pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

from data_utils.system.schema import read_json
from run_files.output import write_json
from run_files.predictions_csv import PredictionTable, read_predictions_csv

INPUTS = ("text_only", "image_only", "none")


class Neighbour(NamedTuple):
    """A training row, its label, and the mean cosine of its vectors with those of the row that it is near."""

    guid: str
    label: str
    similarity: float


class NeighboursFile(TypedDict):
    """neighbours_{split}.json: the columns of each row's neighbours, by its guid."""

    guid: dict[str, list[str]]
    label: dict[str, list[str]]
    similarity: dict[str, list[float]]


@dataclass(frozen=True)
class RowAnswers:
    """Of the same rows in the same order the answers to other inputs, by `INPUTS`; and each row's nearest ones."""

    alone: Mapping[str, PredictionTable]
    neighbours: Mapping[str, Sequence[Neighbour]]

    def write(self, folder: Path, split: str) -> None:
        """Into a run folder, the file that says that all are there last."""
        for name, table in self.alone.items():
            table.write(_answers_file(folder, split, name))
        columns = {
            name: {guid: [each[place] for each in near] for guid, near in self.neighbours.items()}
            for place, name in enumerate(Neighbour._fields)
        }
        write_json(folder / f"neighbours_{split}.json", columns)

    @classmethod
    def read(cls, folder: Path, split: str, table: PredictionTable) -> RowAnswers | None:
        """Those of the rows of a table; None where there are none, or of other rows or classes."""
        if not (folder / f"neighbours_{split}.json").is_file():
            return None
        columns = read_json(folder / f"neighbours_{split}.json", NeighboursFile)
        neighbours = {
            guid: list(map(Neighbour, guids, columns["label"].get(guid, ()), columns["similarity"].get(guid, ())))
            for guid, guids in columns["guid"].items()
        }
        alone = {name: read_predictions_csv(_answers_file(folder, split, name), any_task=True) for name in INPUTS}
        if any((each.guids, each.label_names) != (table.guids, table.label_names) for each in alone.values()):
            return None
        return cls(alone, neighbours)


def _answers_file(folder: Path, split: str, name: str) -> Path:
    return folder / f"predictions_{split}_{name}.csv"
