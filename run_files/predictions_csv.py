"""Reading the predictions that `run_files.report.write_predictions_csv` writes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.system.bounded import read_bounded
from modeling.errors import InputError

UNLABELLED = "null"
MAX_BYTES = 2**31  # a million rows have a twentieth of that
FIRST_COLUMNS = ("guid", "label", "prediction")
PROBABILITY_PREFIX = "prob_"
# Half a unit of the 8th decimal per class and some for the arithmetic of the model, as a share of a sum of 1.
TOLERANCE = 1e-3

_Rows = list[tuple[int, list[str]]]


@dataclass(frozen=True)
class PredictionTable:
    """Answers of one model for N rows and C classes.

    Attributes:
        guids: N names, each once.
        labels: (N,) class ids; -100 stands for an unlabelled row.
        probabilities: (N, C).
        label_names: the C classes' names, in the order of their ids.
    """

    guids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    label_names: tuple[str, ...]

    @property
    def answers(self) -> NDArray[np.int64]:
        """(N,) class ids: the first most probable class, as in `classification_metrics`."""
        return self.probabilities.argmax(axis=1)

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> PredictionTable:
        """The rows of these numbers, in their order."""
        guids = tuple(self.guids[row] for row in rows)
        return PredictionTable(guids, self.labels[rows], self.probabilities[rows], self.label_names)

    def labelled(self) -> PredictionTable:
        """The rows that have a label."""
        return self.select(np.flatnonzero(self.labels != NO_LABEL_ID))

    def with_classes(self, label_names: Sequence[str]) -> PredictionTable:
        """The same with the class ids of `label_names`, which names the same classes in any order."""
        old = [self.label_names.index(name) for name in label_names]
        labels, labelled = self.labels.copy(), self.labels != NO_LABEL_ID
        labels[labelled] = np.argsort(old)[labels[labelled]]
        return PredictionTable(self.guids, labels, self.probabilities[:, old], tuple(label_names))


def read_predictions_csv(path: Path) -> PredictionTable:
    """Read guid,label,prediction,prob_{class}... with at least one row; guids stay text, 'null' is no label.

    Raises:
        InputError: no such file, or one that was damaged: other columns, a cut row, a guid twice, an unknown class,
            numbers that are no probabilities, or a prediction that is not the most probable class.
    """
    header, rows = _read_rows(path)
    label_names = _read_classes(path, header)
    for line, row in rows:
        if len(row) != len(header):
            raise _damaged(path, f"line {line} has {len(row)} cells and the header {len(header)}")
    if not rows:
        raise _damaged(path, "it has no row below its header")
    guid, times = Counter(row[0] for _, row in rows).most_common(1)[0]
    if times > 1:
        raise _damaged(path, f"the guid {guid!r} stands in it {times} times")
    class_ids = {name: number for number, name in enumerate(label_names)}
    labels = _look_up(path, rows, 1, class_ids | {UNLABELLED: NO_LABEL_ID})
    predictions = _look_up(path, rows, 2, class_ids)
    probabilities = _read_probabilities(path, rows)
    _check_probabilities(path, rows, predictions, probabilities)
    return PredictionTable(tuple(row[0] for _, row in rows), labels, probabilities, label_names)


def _read_rows(path: Path) -> tuple[list[str], _Rows]:
    """The header, and each row with its line number."""
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        return header, [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise InputError(
            f"Cannot read the predictions {str(path)!r} ({error.strerror}); check the path and its rights."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error


def _read_classes(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    columns = header[len(FIRST_COLUMNS) :]
    names = tuple(column.removeprefix(PROBABILITY_PREFIX) for column in columns)
    ours = tuple(header[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    if not ours or len(set(names)) < 2 or not all(column.startswith(PROBABILITY_PREFIX) for column in columns):
        expected = ",".join((*FIRST_COLUMNS, *(f"{PROBABILITY_PREFIX}{name}" for name in ("CLASS", "CLASS"))))
        raise _damaged(path, f"its first line is {','.join(header)!r} in place of {expected}...")
    if len(set(names)) < len(names):
        raise _damaged(path, f"a class stands twice in its first line, {','.join(header)!r}")
    return names


def _look_up(path: Path, rows: _Rows, column: int, class_ids: dict[str, int]) -> NDArray[np.int64]:
    """(N,) class ids of a column of names."""
    for line, row in rows:
        if row[column] not in class_ids:
            known = ", ".join(class_ids)
            raise _damaged(
                path, f"line {line} has the {FIRST_COLUMNS[column]} {row[column]!r}, which is none of {known}"
            )
    return np.array([class_ids[row[column]] for _, row in rows], dtype=np.int64)


def _read_probabilities(path: Path, rows: _Rows) -> NDArray[np.float64]:
    try:
        return np.array([row[len(FIRST_COLUMNS) :] for _, row in rows], dtype=np.float64)
    except ValueError as error:
        raise _damaged(path, f"a probability is not a number ({error})") from error


def _check_probabilities(
    path: Path, rows: _Rows, predictions: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> None:
    bad = ~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1)
    bad |= np.abs(probabilities.sum(axis=1) - 1) > TOLERANCE
    if bad.any():
        number, (line, row) = int(bad.sum()), rows[int(bad.argmax())]
        shown = ", ".join(row[len(FIRST_COLUMNS) :])
        raise _damaged(path, f"{number} rows have no probabilities that add up to 1, first line {line}: {shown}")
    chosen = np.take_along_axis(probabilities, predictions[:, None], axis=1)[:, 0]
    # Classes that are equal in all the decimals written may have differed in the model.
    other = chosen < probabilities.max(axis=1)
    if other.any():
        line, row = rows[int(other.argmax())]
        raise _damaged(path, f"line {line} has the prediction {row[2]!r}, which is not its most probable class")


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(
        f"The predictions {str(path)!r} cannot be used: {fault}. Copy the file again from its run, or write it again "
        "with train.py."
    )
