"""Files of predictions: guid,label,prediction,prob_{class}... with a line per row. Legend: N rows, C classes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.system.bounded import read_bounded
from data_utils.system.files import write_csv
from modeling.errors import InputError

UNLABELLED = "null"
MAX_BYTES = 2**31  # a million rows have a twentieth of that
FIRST_COLUMNS = ("guid", "label", "prediction")
PROBABILITY_PREFIX = "prob_"
# Half a unit of the 8th decimal per class and some for the arithmetic of the model, as a share of a sum of 1.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class PredictionTable:
    """Answers of one model.

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

    @classmethod
    def join(cls, parts: Sequence[PredictionTable]) -> PredictionTable:
        """The rows of all parts, which have the same classes, sorted by guid."""
        guids = tuple(guid for part in parts for guid in part.guids)
        labels = np.concatenate([part.labels for part in parts])
        joined = cls(guids, labels, np.concatenate([part.probabilities for part in parts]), parts[0].label_names)
        return joined.select(sorted(range(len(guids)), key=guids.__getitem__))

    @property
    def answers(self) -> NDArray[np.int64]:
        """(N,) class ids: the first most probable class, as in `classification_metrics`."""
        return self.probabilities.argmax(axis=1)

    def label_of_guids(self) -> dict[str, str]:
        """The label's name of each row, all of which are labelled."""
        return {guid: self.label_names[label] for guid, label in zip(self.guids, self.labels.tolist(), strict=True)}

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

    def write(self, path: Path) -> None:
        """See `write_predictions_csv`."""
        write_predictions_csv(path, self.guids, self.labels, self.probabilities, self.label_names)


def write_predictions_csv(
    path: Path, guids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, label_names: Sequence[str]
) -> None:
    """Write what the attributes of `PredictionTable` hold."""
    rows = [[*FIRST_COLUMNS, *(f"{PROBABILITY_PREFIX}{name}" for name in label_names)]]
    for guid, label, values in zip(guids, np.asarray(labels), np.asarray(probabilities), strict=True):
        known = [guid, label_names[label] if label >= 0 else UNLABELLED, label_names[values.argmax()]]
        rows.append([*known, *(f"{value:.8f}" for value in values)])
    write_csv(path, rows)


def write_bad_cases(
    path: Path, guids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, label_names: Sequence[str]
) -> None:
    """Write guid, label and prediction of the labelled rows that were misjudged; see `write_predictions_csv`."""
    judged = zip(guids, np.asarray(labels), np.asarray(probabilities).argmax(axis=1), strict=True)
    rows = [[guid, label_names[label], label_names[answer]] for guid, label, answer in judged if 0 <= label != answer]
    write_csv(path, [FIRST_COLUMNS, *rows])


def read_predictions_csv(path: Path) -> PredictionTable:
    """Read what `write_predictions_csv` wrote, with at least one row; guids stay text.

    Raises:
        InputError: no such file, or one that was damaged: other columns, a cut row, a guid twice, an unknown class,
            numbers that are no probabilities, or a prediction that is not the most probable class.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        label_names = _read_classes(next(reader, []))
        class_ids = {name: number for number, name in enumerate(label_names)}
        parsed = [_read_row(reader.line_num, row, class_ids) for row in reader if row]
        if not parsed:
            raise ValueError("it has no row below its header")
        guids, labels, probabilities = zip(*parsed, strict=True)
        guid, times = Counter(guids).most_common(1)[0]
        if times > 1:
            raise ValueError(f"the guid {guid!r} stands in it {times} times")
    except OSError as error:
        raise InputError(
            f"Cannot read the predictions {str(path)!r} ({error.strerror}); check the path and its rights."
        ) from error
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"The predictions {str(path)!r} cannot be used: {error}. Copy the file again from its run, or write it "
            "again with train.py."
        ) from error
    return PredictionTable(guids, np.array(labels, dtype=np.int64), np.array(probabilities), label_names)


def _read_classes(header: Sequence[str]) -> tuple[str, ...]:
    """The classes' names; `ValueError` for another header."""
    columns = header[len(FIRST_COLUMNS) :]
    ours = tuple(header[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    if not ours or len(set(columns)) < 2 or not all(column.startswith(PROBABILITY_PREFIX) for column in columns):
        expected = ",".join((*FIRST_COLUMNS, *[f"{PROBABILITY_PREFIX}CLASS"] * 2))
        raise ValueError(f"its first line is {','.join(header)!r} in place of {expected}...")
    if len(set(columns)) < len(columns):
        raise ValueError(f"a class stands twice in its first line, {','.join(header)!r}")
    return tuple(column.removeprefix(PROBABILITY_PREFIX) for column in columns)


def _read_row(line: int, row: Sequence[str], class_ids: Mapping[str, int]) -> tuple[str, int, list[float]]:
    """The guid, the id of the label and the probabilities; `ValueError` for what is no whole row."""
    if len(row) != len(FIRST_COLUMNS) + len(class_ids):
        raise ValueError(f"line {line} has {len(row)} cells and the header {len(FIRST_COLUMNS) + len(class_ids)}")
    guid, label, prediction, *cells = row
    for name, cell in (("label", label), ("prediction", prediction)):
        if cell not in class_ids and (name, cell) != ("label", UNLABELLED):
            raise ValueError(f"line {line} has the {name} {cell!r}, which is none of {', '.join(class_ids)}")
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise ValueError(f"line {line} has a probability that is not a number ({error})") from error
    if not (min(values) >= 0 and max(values) <= 1 + 1e-6 and abs(sum(values) - 1) <= TOLERANCE):  # nor is NaN
        raise ValueError(f"line {line} has no probabilities that add up to 1: {', '.join(cells)}")
    # Classes that are equal in all the decimals written may have differed in the model.
    if values[class_ids[prediction]] < max(values):
        raise ValueError(f"line {line} has the prediction {prediction!r}, which is not its most probable class")
    return guid, NO_LABEL_ID if label == UNLABELLED else class_ids[label], values
