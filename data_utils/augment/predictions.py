"""Predictions of rows that the model had not seen, and the rows that it misjudged."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.sources.records import Record
from modeling.errors import InputError
from run_files.folds_folder import OUT_OF_FOLD_FILE
from run_files.predictions_csv import UNLABELLED, read_predictions_csv

logger = logging.getLogger(__name__)

_VALIDATION_FILE = "predictions_val.csv"
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


def read_predictions(path: Path) -> Predictions:
    """What a table says of each row; see `read_predictions_csv`, which also says what is refused."""
    table, rows = read_predictions_csv(path), {}
    for guid, label, answer, values in zip(table.guids, table.labels, table.answers, table.probabilities, strict=True):
        known = label != NO_LABEL_ID  # a row without a label is told with all others of its kind, by `check_rows`
        name = table.label_names[label] if known else UNLABELLED
        loss = -math.log(max(values[label], _SMALLEST)) if known else math.nan
        rows[guid] = Judgement(name, table.label_names[answer], loss)
    return Predictions(path, hashlib.sha256(path.read_bytes()).hexdigest(), table.label_names, rows)


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
        elif guid not in label_of or row.label == UNLABELLED:
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
