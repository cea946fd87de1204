"""Predictions for a list of pairs: one line per row of the list, in its order, whatever is wrong with a row."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from data_utils.errors import InputError
from data_utils.files import write_csv
from data_utils.ledger import Ledger
from data_utils.loading import has_files
from data_utils.pairs import NO_LABEL_ID, pair_folder
from data_utils.records import read_records
from data_utils.text import decode_text
from evaluation.loaded_run import LoadedRun
from evaluation.report import write_json
from evaluation.scoring import score_predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputFiles:
    """The files that a prediction makes, all beside the output.

    Attributes:
        output: guid,tag per row.
    """

    output: Path

    @property
    def probabilities(self) -> Path:
        """guid, prediction and a probability per class."""
        return self._beside("probabilities.csv")

    @property
    def quarantine(self) -> Path:
        """What was wrong with which row; written only if something was."""
        return self._beside("quarantine.csv")

    @property
    def contributions(self) -> Path:
        """What text and picture contribute on the whole; written only if asked for."""
        return self._beside("contributions.json")

    @property
    def metrics(self) -> Path:
        """Figures of the rows that have a label; written only if some have."""
        return self._beside("metrics.json")

    def prepare(self, inputs: Iterable[Path]) -> None:
        """Make the output's folder.

        Args:
            inputs: files that are read, which nothing may overwrite.

        Raises:
            InputError: an output can't be written, or would overwrite an input.
        """
        read = {path.resolve() for path in inputs}
        for path in (self.output, self.probabilities, self.quarantine, self.metrics, self.contributions):
            if path.resolve() in read:
                raise InputError(f"--output {self.output} would overwrite {path.resolve()}; give it another name.")
            if path.exists() and not path.is_file():
                raise InputError(f"Cannot write {path}, which is not a plain file; give --output another name.")
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):  # found out now, not after the whole prediction
                pass
        except OSError as error:
            raise InputError(f"Cannot write into {self.output.parent} ({error}); give another --output.") from error

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(f"{self.output.stem}.{ending}")


@dataclass(frozen=True)
class PredictionFiles(OutputFiles):
    """Those of a list.

    Attributes:
        source: the list, guid,tag per line.
    """

    source: Path

    def prepare_list(self) -> None:
        """As `prepare`; also `InputError` for a list that isn't there."""
        if not self.source.is_file():
            raise InputError(
                f"Got --predict {self.source}, which is not a file; name a list of guid,tag lines, or add --streaming "
                "for shards."
            )
        self.prepare([self.source])


def find_pair_dir(source: Path, run: LoadedRun, *, data_dir: str | None) -> Path:
    """The folder of the pairs: --data_dir if given, else of the list's own folder and the run's that which has files.

    Raises:
        InputError: in none of them is a file of any row: every prediction would be the same guess.
    """
    candidates = [Path(data_dir)] if data_dir is not None else [source.parent, Path(run.data.data_dir)]
    records = read_records(source, labels=run.data.labels, ledger=Ledger(), for_prediction=True)
    for folder in candidates:
        if folder.is_dir() and any(has_files(pair_folder(folder), record) for record in records):
            return folder
    looked_in = " or ".join(str(folder) for folder in candidates)
    raise InputError(
        f"Found no text and no picture of the {len(records)} rows of {source} in {looked_in}; pass --data_dir, the "
        "folder that has data/{guid}.txt and data/{guid}.jpg in it."
    )


def write_predictions(
    files: PredictionFiles,
    dataset: Dataset,
    ledger: Ledger,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    *,
    columns: Mapping[str, NDArray[Any]],
) -> dict[str, Any] | None:
    """Write all files of a prediction; what an earlier one left beside the output and this one has not is removed.

    Args:
        files: where.
        dataset: N rows with guid and label, in the list's order.
        ledger: what was wrong with them.
        probabilities: (N, C).
        label_names: the C classes' names.
        columns: further ones (N,) of the file of probabilities.

    Returns:
        The metrics of the labelled rows; None where no row has a label.
    """
    probabilities, guids, labels = np.asarray(probabilities), dataset["guid"][:], np.asarray(dataset["label"][:])
    predictions = [label_names[index] for index in probabilities.argmax(axis=1)]
    rows: list[Sequence[str]] = list(zip(guids, predictions, strict=True))
    write_csv(files.output, [("guid", "tag"), *rows] if _has_header(files.source, len(guids)) else rows)
    _write_probabilities(files.probabilities, rows, probabilities, label_names, columns)
    for path in (files.quarantine, files.metrics, files.contributions):
        path.unlink(missing_ok=True)
    if len(ledger):
        ledger.write_csv(files.quarantine)
    if ledger.summary():
        logger.info("%s", ledger.summary())
    if (labels == NO_LABEL_ID).all():
        return None
    metrics = score_predictions(probabilities, labels, label_names)
    write_json(files.metrics, metrics)
    return metrics


def _write_probabilities(
    path: Path,
    rows: Sequence[Sequence[str]],
    probabilities: NDArray[np.float64],
    label_names: Sequence[str],
    columns: Mapping[str, NDArray[Any]],
) -> None:
    header = ["guid", "prediction", *(f"prob_{name}" for name in label_names), *columns]
    values = [[_format(value) for value in row] for row in zip(*probabilities.T, *columns.values(), strict=True)]
    write_csv(path, [header, *([*row, *value] for row, value in zip(rows, values, strict=True))])


def _format(value: float | bool) -> str:
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else f"{value:.6f}"


def _has_header(source: Path, num_rows: int) -> bool:
    """Whether the list begins with a header: then it has a line more than rows were read of it."""
    text, _ = decode_text(source.read_bytes())
    num_lines = sum(1 for line in re.split(r"\r\n|\n|\r", text) if line.strip("\0 \t\ufeff"))
    return num_lines == num_rows + 1
