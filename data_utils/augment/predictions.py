"""Predictions of rows that the model had not seen, and the rows that it misjudged."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from pathlib import Path

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.sources.records import Record
from modeling.errors import InputError
from run_files.folds_folder import OUT_OF_FOLD_FILE
from run_files.predictions_csv import PredictionTable

logger = logging.getLogger(__name__)

_VALIDATION_FILE = "predictions_val.csv"
_SMALLEST = 1e-12
_ADVICE = (
    "make predictions of rows the model had not seen with `train.py --folds 5`, and pass that run, or its "
    f"{OUT_OF_FOLD_FILE}"
)


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


def check_rows(table: PredictionTable, records: Sequence[Record], known: Collection[str]) -> None:
    """Refuse predictions that aren't of the list's labelled rows.

    Args:
        table: the predictions.
        records: the labelled rows of the list.
        known: every guid of the list.

    Raises:
        InputError: says how many rows are unknown, unlabelled or labelled otherwise, with an example of each.
    """
    label_of = {record.guid: record.label for record in records}
    faults: dict[str, list[str]] = {"not in the list": [], "not labelled": [], "labelled otherwise": []}
    for guid, label in zip(table.guids, table.labels, strict=True):
        if guid not in known:
            faults["not in the list"].append(f"'{guid}'")
        elif guid not in label_of or label == NO_LABEL_ID:
            faults["not labelled"].append(f"'{guid}'")
        elif table.label_names[label] != label_of[guid]:
            found = f"'{guid}' ({table.label_names[label]!r}, in the list {label_of[guid]!r})"
            faults["labelled otherwise"].append(found)
    told = [f"{len(found)} are {fault}, like {found[0]}" for fault, found in faults.items() if found]
    if told:
        raise InputError(
            f"The predictions are not of the labelled rows of the list: of {len(table.guids)} rows {'; '.join(told)}. "
            "Check --predictions, --data_dir and --train_file."
        )


def choose_rows(
    table: PredictionTable, records: Sequence[Record], *, min_loss: float | None, only: Sequence[str] | None
) -> list[Record]:
    """The rows to be copied, in the list's order.

    Args:
        table: predictions of labelled rows.
        records: the labelled rows of the list.
        min_loss: take every row of at least this loss, right or wrong, instead of the misjudged ones.
        only: labels of the rows that may be taken; all by default.

    Raises:
        InputError: a label of `only` is none of the table's.
    """
    unknown = [label for label in only or () if label not in table.label_names]
    if unknown:
        raise InputError(f"Got --only {' '.join(unknown)}; the predictions know {', '.join(table.label_names)}.")
    chosen = set()
    for guid, label, answer, values in zip(table.guids, table.labels, table.answers, table.probabilities, strict=True):
        loss = -math.log(max(values[label], _SMALLEST))
        if answer != label if min_loss is None else loss >= min_loss:
            chosen.add(guid)
    return [record for record in records if record.guid in chosen and (not only or record.label in only)]
