"""Files of predictions: guid,label,prediction,prob_{class}... with a line per row. Legend: N rows, C classes.

Those of a multi-label task begin with guid,labels,predictions (names with | between), those of a regression are
guid,label,prediction alone.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_utils.prepare.columns import is_labelled
from data_utils.sources.label_forms import UNLABELLED, VALUE, encode_labels, is_allowed, name_labels, split_label
from data_utils.system.bounded import read_bounded
from data_utils.system.files import write_csv
from modeling.errors import InputError

MAX_BYTES = 2**31  # a million rows have a twentieth of that
FIRST_COLUMNS, MULTI_COLUMNS = ("guid", "label", "prediction"), ("guid", "labels", "predictions")
PROBABILITY_PREFIX = "prob_"
# Half a unit of the 8th decimal per class and some for the arithmetic of the model, as a share of a sum of 1.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class PredictionTable:
    """Answers of one model.

    Attributes:
        guids: N names, each once.
        labels: (N,) class ids; -100 stands for an unlabelled row. Of other tasks see `data_utils.prepare.columns`.
        probabilities: (N, C); of a regression the numbers that were answered, (N, 1).
        label_names: the C classes' names, in the order of their ids.
        answers: in the form of the labels; by default the first most probable class.
    """

    guids: tuple[str, ...]
    labels: NDArray[Any]
    probabilities: NDArray[np.float64]
    label_names: tuple[str, ...]
    answers: NDArray[Any] = None  # type: ignore[assignment]  # filled in

    def __post_init__(self) -> None:
        if self.answers is None:
            object.__setattr__(self, "answers", self.probabilities.argmax(axis=1))

    @classmethod
    def join(cls, parts: Sequence[PredictionTable]) -> PredictionTable:
        """The rows of all parts, which have the same classes, sorted by guid."""
        guids = tuple(guid for part in parts for guid in part.guids)
        labels, values, answers = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "probabilities", "answers")
        )
        joined = cls(guids, labels, values, parts[0].label_names, answers)
        return joined.select(sorted(range(len(guids)), key=guids.__getitem__))

    def label_of_guids(self) -> dict[str, str]:
        """The label's name of each row, all of which are labelled."""
        return dict(zip(self.guids, name_labels(self.labels, self.label_names), strict=True))

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> PredictionTable:
        """The rows of these numbers, in their order."""
        guids = tuple(self.guids[row] for row in rows)
        return PredictionTable(guids, self.labels[rows], self.probabilities[rows], self.label_names, self.answers[rows])

    def labelled(self) -> PredictionTable:
        """The rows that have a label."""
        return self.select(np.flatnonzero(is_labelled(self.labels)))

    def with_classes(self, label_names: Sequence[str]) -> PredictionTable:
        """The same with the class ids of `label_names`, which names the same classes in any order."""
        old = [self.label_names.index(name) for name in label_names]
        labels, labelled = self.labels.copy(), is_labelled(self.labels)
        labels[labelled] = np.argsort(old)[labels[labelled]]
        return PredictionTable(self.guids, labels, self.probabilities[:, old], tuple(label_names))

    def write(self, path: Path) -> None:
        """See `write_predictions_csv`."""
        write_predictions_csv(path, self.guids, self.labels, self.probabilities, self.label_names, self.answers)


def write_predictions_csv(
    path: Path,
    guids: Sequence[str],
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    answers: ArrayLike | None = None,
) -> None:
    """Write what the attributes of `PredictionTable` hold."""
    known, values = np.asarray(labels), np.asarray(probabilities)
    given = values.argmax(axis=1) if answers is None else answers
    first = FIRST_COLUMNS if known.ndim == 1 else MULTI_COLUMNS
    num_shown = 0 if known.dtype.kind != "i" and known.ndim == 1 else len(label_names)
    rows = [[*first, *(f"{PROBABILITY_PREFIX}{name}" for name in label_names[:num_shown])]]
    columns = (name_labels(each, label_names) for each in (known, given))
    for guid, label, answer, shares in zip(guids, *columns, values[:, :num_shown], strict=True):
        rows.append([guid, label, answer, *(f"{value:.8f}" for value in shares)])
    write_csv(path, rows)


def write_bad_cases(
    path: Path, guids: Sequence[str], labels: ArrayLike, answers: ArrayLike, label_names: Sequence[str]
) -> None:
    """Write guid, label and prediction of the labelled rows that were misjudged, a number's largest errors first."""
    known, given = np.asarray(labels), np.asarray(answers)
    wrong = is_labelled(known) & (known != given).reshape(len(known), -1).any(axis=1)
    rows: NDArray[np.int64] = np.flatnonzero(wrong)
    if known.dtype.kind != "i" and known.ndim == 1:
        rows = rows[np.argsort(-np.abs(known - given)[rows], kind="stable")]
    names = zip(name_labels(known[rows], label_names), name_labels(given[rows], label_names), strict=True)
    write_csv(path, [FIRST_COLUMNS, *([guids[row], *each] for row, each in zip(rows.tolist(), names, strict=True))])


def read_predictions_csv(path: Path, *, any_task: bool = False) -> PredictionTable:
    """Read what `write_predictions_csv` wrote, with at least one row; guids stay text.

    Raises:
        InputError: no such file, or one that was damaged: other columns, a cut row, a guid twice, an unknown class,
            numbers that are no probabilities, or a prediction that is not the most probable class. Without `any_task`
            also one of another task than single_label.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        task, label_names = _read_header(header)
        if not (any_task or task == "single_label"):
            raise InputError(
                f"The predictions {str(path)!r} can't be used here, but those of single_label alone: its first line is "
                f"{','.join(header)!r}, as of --task {task}."
            )
        parsed = [_read_row(reader.line_num, row, label_names, task) for row in reader if row]
        if not parsed:
            raise ValueError("it has no row below its header")
        guids, *labels, values = zip(*parsed, strict=True)
        guid, times = Counter(guids).most_common(1)[0]
        if times > 1:
            raise ValueError(f"the guid {guid!r} stands in it {times} times")
    except OSError as error:
        raise InputError(
            f"Cannot read the predictions {str(path)!r} ({error.strerror}); check the path and its rights."
        ) from error
    except InputError:
        raise
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"The predictions {str(path)!r} cannot be used: {error}. Copy the file again from its run, or write it "
            "again with train.py."
        ) from error
    known, given = (encode_labels(texts, label_names, task) for texts in labels)
    shares = given[:, None].astype(np.float64) if task == "regression" else np.array(values)
    table = PredictionTable(guids, known, shares, label_names)
    return table if task == "single_label" else replace(table, answers=given)


def _read_header(header: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The task and the classes' names; `ValueError` for another header."""
    first, columns = tuple(header[: len(FIRST_COLUMNS)]), header[len(FIRST_COLUMNS) :]
    if first == FIRST_COLUMNS and not columns:
        return "regression", (VALUE,)
    ours = first in (FIRST_COLUMNS, MULTI_COLUMNS)
    if not ours or len(set(columns)) < 2 or not all(column.startswith(PROBABILITY_PREFIX) for column in columns):
        expected = ",".join((*FIRST_COLUMNS, *[f"{PROBABILITY_PREFIX}CLASS"] * 2))
        raise ValueError(f"its first line is {','.join(header)!r} in place of {expected}...")
    if len(set(columns)) < len(columns):
        raise ValueError(f"a class stands twice in its first line, {','.join(header)!r}")
    names = tuple(column.removeprefix(PROBABILITY_PREFIX) for column in columns)
    return "single_label" if first == FIRST_COLUMNS else "multi_label", names


def _read_row(
    line: int, row: Sequence[str], names: Sequence[str], task: str
) -> tuple[str, str | None, str, list[float]]:
    """The guid, the label, the prediction and the probabilities; `ValueError` for what is no whole row."""
    num_values = 0 if task == "regression" else len(names)
    if len(row) != len(FIRST_COLUMNS) + num_values:
        raise ValueError(f"line {line} has {len(row)} cells and the header {len(FIRST_COLUMNS) + num_values}")
    guid, label, prediction, *cells = row
    for name, cell in (("label", label), ("prediction", prediction)):
        unknown = [part for part in split_label(cell, names, task) if not is_allowed(part, names, task)]
        if unknown and (name, cell) != ("label", UNLABELLED):
            fault = "no finite number" if task == "regression" else f"none of {', '.join(names)}"
            raise ValueError(f"line {line} has the {name} {cell!r}, which is {fault}")
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise ValueError(f"line {line} has a probability that is not a number ({error})") from error
    are_shares = task != "single_label" or abs(sum(values) - 1) <= TOLERANCE
    if not (all(0 <= value <= 1 + 1e-6 for value in values) and are_shares):  # nor is NaN
        raise ValueError(f"line {line} has no probabilities that add up to 1: {', '.join(cells)}")
    # Classes that are equal in all the decimals written may have differed in the model.
    if task == "single_label" and values[names.index(prediction)] < max(values):
        raise ValueError(f"line {line} has the prediction {prediction!r}, which is not its most probable class")
    return guid, None if label == UNLABELLED else label, prediction, values
