"""Predictions of rows that the model had not seen, and the rows that it misjudged."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_utils.sources.encodings import decode_text
from data_utils.sources.records import MAX_LIST, Record
from data_utils.system.bounded import read_bounded
from modeling.errors import InputError

logger = logging.getLogger(__name__)

OUT_OF_FOLD_FILE = "predictions_oof.csv"
_VALIDATION_FILE = "predictions_val.csv"
_COLUMNS = ("guid", "label", "prediction")
_PROBABILITY = "prob_"
_SMALLEST = 1e-12
_ADVICE = (
    "make predictions of rows the model had not seen with `train.py --folds 5`, and pass that run, or its "
    f"{OUT_OF_FOLD_FILE}"
)


@dataclass(frozen=True)
class Judgement:
    """What was predicted of a row; loss is -ln of the probability of its label."""

    label: str
    prediction: str
    loss: float


@dataclass(frozen=True)
class Predictions:
    """A table of predictions.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        labels: the classes it has probabilities of.
        rows: by guid.
    """

    path: Path
    sha256: str
    labels: tuple[str, ...]
    rows: Mapping[str, Judgement]


def find_predictions(path: Path) -> Path:
    """The table that `--predictions` means: a file itself, or the out-of-fold table of a folds run.

    Raises:
        InputError: nothing is there, or it is the folder of another run.
    """
    if path.is_file():
        if path.name == _VALIDATION_FILE:
            logger.warning(
                "%s holds the validation rows of one run: their copies serve training only where a later split holds "
                "out other rows.",
                path,
            )
        return path
    if not path.is_dir():
        raise InputError(f"Got --predictions {path}, which does not exist; {_ADVICE}.")
    found = path / OUT_OF_FOLD_FILE
    if not found.is_file():
        raise InputError(
            f"Got --predictions {path}, which has no {OUT_OF_FOLD_FILE}. The predictions of a plain run are of its "
            "validation rows, of which no copies should be made for it, or of rows it was trained on, which hide its "
            f"errors; {_ADVICE}."
        )
    return found


def _read_cells(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}, is no line of a CSV: {error}.") from error


def read_predictions(path: Path) -> Predictions:
    """Read columns guid, label, prediction and prob_{class} of each class.

    Raises:
        InputError: not readable, a column is missing, a guid stands twice, or a cell is no probability.
    """
    try:
        source = read_bounded(path, MAX_LIST)
    except OSError as error:
        raise InputError(f"Cannot read the predictions {path} ({error.strerror}); check its rights.") from error
    reader = csv.DictReader(io.StringIO(decode_text(source)[0], newline=""))
    names = list(reader.fieldnames or ())
    labels = tuple(name.removeprefix(_PROBABILITY) for name in names if name.startswith(_PROBABILITY))
    if not set(_COLUMNS) <= set(names) or len(labels) < 2:
        raise InputError(
            f"{path} has the columns {', '.join(names) or 'none'}; expected guid, label, prediction and prob_ of each "
            f"class. If you have no such table, {_ADVICE}."
        )
    rows: dict[str, Judgement] = {}
    for cells in _read_cells(reader, path):
        guid = cells["guid"]
        if guid in rows:
            raise InputError(
                f"{path}, line {reader.line_num}: the guid {guid!r} stands twice; each row is judged once."
            )
        rows[guid] = _read_row(cells, labels, where=f"{path}, line {reader.line_num}")
    return Predictions(path, hashlib.sha256(source).hexdigest(), labels, rows)


def _read_row(cells: Mapping[str, str | None], labels: Sequence[str], *, where: str) -> Judgement:
    label, prediction = cells["label"] or "", cells["prediction"] or ""
    if prediction not in labels:
        raise InputError(f"{where}: the prediction is {prediction!r}; expected one of {', '.join(labels)}.")
    if label not in labels:  # told with all others of its kind, by `check_rows`
        return Judgement(label, prediction, math.nan)
    cell = cells[_PROBABILITY + label] or ""
    try:
        probability = float(cell)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise InputError(f"{where}: the probability of {label} is {cell!r}; expected a number from 0 to 1.")
    return Judgement(label, prediction, -math.log(max(probability, _SMALLEST)))


def check_rows(predictions: Predictions, records: Sequence[Record], known: Collection[str], *, list_file: Path) -> None:
    """Refuse predictions that aren't of the list's labelled rows.

    Args:
        predictions: the table.
        records: the labelled rows of the list.
        known: every guid of the list.
        list_file: for the message.

    Raises:
        InputError: says how many rows are unknown, unlabelled or labelled otherwise, with an example of each.
    """
    label_of = {record.guid: record.label for record in records}
    faults: dict[str, list[str]] = {"not in the list": [], "not labelled": [], "labelled otherwise": []}
    for guid, row in predictions.rows.items():
        if guid not in known:
            faults["not in the list"].append(f"'{guid}'")
        elif guid not in label_of or row.label in ("", "null"):
            faults["not labelled"].append(f"'{guid}'")
        elif row.label != label_of[guid]:
            faults["labelled otherwise"].append(f"'{guid}' ({row.label!r}, in the list {label_of[guid]!r})")
    told = [f"{len(found)} are {fault}, like {found[0]}" for fault, found in faults.items() if found]
    if told:
        raise InputError(
            f"{predictions.path} is not of the labelled rows of {list_file}: of its {len(predictions.rows)} rows "
            f"{'; '.join(told)}. Check --predictions, --data_dir and --train_file."
        )


def choose_rows(
    predictions: Predictions, records: Sequence[Record], *, min_loss: float | None, only: Sequence[str] | None
) -> list[Record]:
    """The rows to be copied, in the list's order.

    Args:
        predictions: the table.
        records: the labelled rows of the list.
        min_loss: take every row of at least this loss, right or wrong, instead of the misjudged ones.
        only: labels of the rows that may be taken; all by default.

    Raises:
        InputError: a label of `only` is none of the table's.
    """
    unknown = [label for label in only or () if label not in predictions.labels]
    if unknown:
        raise InputError(f"Got --only {' '.join(unknown)}; the predictions know {', '.join(predictions.labels)}.")
    chosen = []
    for record in records:
        row = predictions.rows.get(record.guid)
        if row is None or (only and row.label not in only):
            continue
        if row.loss >= min_loss if min_loss is not None else row.prediction != row.label:
            chosen.append(record)
    return chosen
