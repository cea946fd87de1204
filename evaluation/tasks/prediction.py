"""Predictions for a list of pairs: one line per row of the list, in its order, whatever is wrong with a row."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pair_files import PairFolder
from data_utils.prepare.pairs import pair_folder
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import Record, read_records
from data_utils.system.files import encode_csv, write_together
from evaluation.predict.loaded_run import LoadedRun
from evaluation.scores.scoring import score_predictions
from evaluation.tasks.output_files import OutputFiles
from modeling.errors import InputError
from run_files.output import write_json

logger = logging.getLogger(__name__)
_SHOWN = 60  # characters


@dataclass(frozen=True)
class PredictionFiles(OutputFiles):
    """Those of a list.

    Attributes:
        source: the list, guid,tag per line.
    """

    source: Path

    def prepare_list(self, run: LoadedRun) -> None:
        """As `prepare`; also `InputError` for a list that isn't there."""
        if not self.source.is_file():
            raise InputError(
                f"Got --predict {self.source}, which is not a file; name a list of guid,tag lines, or add --streaming "
                "for shards."
            )
        self.prepare([self.source, *run.list_files()])


def find_pair_dir(source: Path, run: LoadedRun, *, data_dir: str | None) -> Path:
    """The folder of the pairs: --data_dir if given, else of the list's own folder and the run's that which has files.

    Raises:
        InputError: in none of them is a file of any row: every prediction would be the same guess.
    """
    candidates = [Path(data_dir)] if data_dir is not None else [source.parent, Path(run.data.data_dir)]
    records = read_records(source, labels=run.data.labels, quarantine=Quarantine(), for_prediction=True)
    folders = {path: PairFolder(pair_folder(path)) for path in candidates if os.path.isdir(path)}
    for path, folder in folders.items():
        if _has_files(folder, records):
            return path
    guid = records[0].guid
    names = (folder.find_near(guid, is_text=is_text) for folder in folders.values() for is_text in (True, False))
    near = next((f" ({name.text})" for name in names if name), "")
    looked_in = " or ".join(str(folder) for folder in candidates)
    raise InputError(
        f"Found no text and no picture of the {len(records)} rows of {source} in {looked_in}. Its first row, line "
        f"{records[0].row}, was read as the guid {_shorten(guid)}{near}: if that is a guid, pass --data_dir, the "
        "folder that has data/{guid}.txt and data/{guid}.jpg in it; if not, write the list as UTF-8 text of lines "
        "guid,tag, in this order and with a comma between."
    )


def _has_files(folder: PairFolder, records: Sequence[Record]) -> bool:
    """Whether the folder has a text or a picture of any record; of a name too long for a file nobody can say."""
    return any("file" in (files.text.kind, files.picture.kind) for files in map(folder.find, records))


def write_predictions(
    files: PredictionFiles,
    dataset: Dataset,
    quarantine: Quarantine,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    *,
    columns: Mapping[str, NDArray[Any]],
) -> dict[str, Any] | None:
    """Write all files of a prediction; what an earlier one left beside the output and this one has not is removed.

    Args:
        files: where.
        dataset: N rows with guid and label, in the list's order.
        quarantine: what was wrong with them.
        probabilities: (N, C).
        label_names: the C classes' names.
        columns: further ones (N,) of the file of probabilities.

    Returns:
        The metrics of the labelled rows; None where no row has a label.
    """
    probabilities, guids, labels = np.asarray(probabilities), dataset["guid"][:], np.asarray(dataset["label"][:])
    predictions = [label_names[index] for index in probabilities.argmax(axis=1)]
    rows: list[Sequence[str]] = list(zip(guids, predictions, strict=True))
    answers = encode_csv([*_read_header(files.source, len(guids)), *rows])
    details = _format_probabilities(rows, probabilities, label_names, columns)
    write_together({files.output: answers, files.probabilities: details})
    for path in (files.quarantine, files.encodings, files.metrics, files.contributions):
        path.unlink(missing_ok=True)
    quarantine.save(files.quarantine, keep_empty=False)
    if quarantine.summary():
        logger.info("%s", quarantine.summary())
    if (labels == NO_LABEL_ID).all():
        return None
    metrics = score_predictions(probabilities, labels, label_names)
    write_json(files.metrics, metrics)
    return metrics


def _format_probabilities(
    rows: Sequence[Sequence[str]],
    probabilities: NDArray[np.float64],
    label_names: Sequence[str],
    columns: Mapping[str, NDArray[Any]],
) -> bytes:
    header = ["guid", "prediction", *(f"prob_{name}" for name in label_names), *columns]
    values = [[_format(value) for value in row] for row in zip(*probabilities.T, *columns.values(), strict=True)]
    return encode_csv([header, *([*row, *value] for row, value in zip(rows, values, strict=True))])


def _format(value: float | bool) -> str:
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else f"{value:.6f}"


def _read_header(source: Path, num_rows: int) -> list[tuple[str, str]]:
    """The names of the list's first two columns; nothing if it has a line for each row alone, and so no header."""
    text, _ = decode_text(source.read_bytes())
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip("\0 \t\ufeff")]
    if len(lines) == num_rows:
        return []
    first, second, *_ = [*(cell.strip() for cell in next(csv.reader(lines[:1], skipinitialspace=True))), ""]
    return [(first, second or "tag")]


def _shorten(guid: str) -> str:
    """For a sentence: not all of a line that has no comma."""
    return repr(guid if len(guid) <= _SHOWN else f"{guid[:_SHOWN]}...")
