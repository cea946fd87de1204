"""What an evaluation leaves behind: files in the run folder and plain tables for the screen."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from data_utils.console.screen import printable
from data_utils.system.files import write_bytes, write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELL = 120  # characters shown


def write_json(path: Path, content: Any) -> None:
    """Write JSON that any reader takes: indented, UTF-8, and without NaN (`ValueError`)."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a picture of matplotlib's as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())


def write_predictions_csv(
    path: Path, guids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, label_names: Sequence[str]
) -> None:
    """Write guid, label, prediction and a probability per class, one line per row.

    Args:
        path: of the file.
        guids: N names.
        labels: (N,) class ids; -100 is written as null.
        probabilities: (N, C).
        label_names: the C classes' names.
    """
    probabilities = np.asarray(probabilities)
    header = ["guid", "label", "prediction", *(f"prob_{name}" for name in label_names)]
    rows = (
        [guid, _label_name(label, label_names), label_names[row.argmax()], *(f"{value:.8f}" for value in row)]
        for guid, label, row in zip(guids, np.asarray(labels), probabilities, strict=True)
    )
    write_csv(path, [header, *rows])


def write_bad_cases(
    path: Path, guids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, label_names: Sequence[str]
) -> None:
    """Write guid, label and prediction of the labelled rows that were misjudged; see `write_predictions_csv`."""
    predictions = np.asarray(probabilities).argmax(axis=1)
    rows = (
        [guid, label_names[label], label_names[prediction]]
        for guid, label, prediction in zip(guids, np.asarray(labels), predictions, strict=True)
        if label >= 0 and label != prediction
    )
    write_csv(path, [["guid", "label", "prediction"], *rows])


def format_interval(value: float, interval: Sequence[float]) -> str:
    """0.731 [0.683, 0.778]"""
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, for the screen: the first to the left, the others to the right."""
    rows = [[printable(cell, MAX_CELL) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, the header first."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def format_metrics(metrics: dict[str, Any], *, title: str) -> str:
    """The summary, the table of classes and the confusion matrix of `score_predictions` as plain text."""
    baseline = metrics["majority_baseline"]
    accuracy = format_interval(metrics["accuracy"], metrics["accuracy_interval"])
    macro_f1 = format_interval(metrics["macro_f1"], metrics["macro_f1_interval"])
    others = f"weighted-F1 {metrics['weighted_f1']:.3f}  ECE {metrics['ece']:.3f}"
    classes = [["class", "precision", "recall", "F1", "rows"]]
    for name, scores in metrics["per_class"].items():
        figures = [f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")]
        classes.append([name, *figures, str(scores["support"])])
    matrix = [["label \\ prediction", *metrics["label_names"]]]
    for name, counts in zip(metrics["label_names"], metrics["confusion_matrix"], strict=True):
        matrix.append([name, *(str(count) for count in counts)])
    return "\n".join(
        [
            f"{title}: {metrics['num_rows']} rows, 95 % intervals in brackets (bootstrap over rows)",
            f"accuracy {accuracy}  macro-F1 {macro_f1}  {others}",
            f"always {baseline['label']}: accuracy {baseline['accuracy']:.3f}",
            "",
            format_table(classes),
            "",
            format_table(matrix),
        ]
    )


def format_ablation(result: dict[str, Any], *, title: str) -> str:
    """The table of `evaluation.tasks.ablation.summarise_ablation` and its remarks as plain text."""
    rows = [["input", "accuracy", "macro-F1", "weighted-F1"]]
    for name, metrics in result["inputs"].items():
        accuracy = format_interval(metrics["accuracy"], metrics["accuracy_interval"])
        macro_f1 = format_interval(metrics["macro_f1"], metrics["macro_f1_interval"])
        rows.append([name, accuracy, macro_f1, f"{metrics['weighted_f1']:.3f}"])
    baseline = result["majority_baseline"]
    rows.append([f"always {baseline['label']}", f"{baseline['accuracy']:.3f}", "", ""])
    heading = f"ablation on {title}: {result['num_rows']} rows, missing modality: {result['ablation_input']}"
    return "\n".join(
        [f"{heading}, 95 % intervals in brackets", "", format_table(rows), "", *result["remarks"]]
    ).rstrip()


def _label_name(label: int, label_names: Sequence[str]) -> str:
    return label_names[label] if label >= 0 else "null"
