"""The parts of a report that need no data, but what a run has written. Legend: N rows, C classes, R resamples."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_utils.page.charts import Chart, Series
from data_utils.page.shown import Figure
from data_utils.system.bounded import read_bounded
from data_utils.system.schema import read_json
from evaluation.report.judged import Judged, figure_of
from evaluation.report.slices import measure
from evaluation.scores.calibration import reliability_bins
from evaluation.scores.contributions import compute_contributions, summarise_contributions
from evaluation.scores.metrics import Floats
from evaluation.scores.resampling import Scores, find_intervals, resample
from evaluation.scores.scoring import score_answers
from run_files.folds_folder import FoldsFolder
from run_files.predictions_csv import MAX_BYTES, PredictionTable
from run_files.run_folder import RunFolder
from run_files.schema import HistoryFile, RobustnessFile

MAX_CLASSES, MAX_POINTS, MAX_CURVES = 20, 400, 10
INPUT_TITLES = {"text_only": "text alone", "image_only": "picture alone", "none": "neither"}


def draw_curves(judged: Judged) -> list[Chart]:
    """The loss and the first two scores in training, of the run or of its first trainings."""
    folder, is_folds = judged.folder, isinstance(judged.folder, FoldsFolder)
    runs: Sequence[RunFolder] = folder.members()[:MAX_CURVES] if isinstance(folder, FoldsFolder) else [folder]
    histories = [read_json(run.history_file, HistoryFile) for run in runs if run.history_file.is_file()]
    losses = _curves(histories, "loss", "training", 1) + _curves(histories, "eval_loss", "validation", 2)
    each = " of each fold" if is_folds else ""
    charts = [_draw(f"Loss{each}", "loss", losses)] if losses else []
    for name in list(judged.task.scores)[:2]:
        if curves := _curves(histories, f"eval_{name}", "validation", 2):
            charts.append(_draw(f"{judged.task.scores[name]} of the validation rows{each}", "", curves))
    return charts


def _curves(histories: Sequence[Any], key: str, name: str, colour: int) -> list[Series]:
    """One for each history; the first alone has a name, for the legend."""
    points = [
        [(entry["epoch"], entry[key]) for entry in each if key in entry and "epoch" in entry] for each in histories
    ]
    lines = [each for each in points if each]
    return [Series("" if number else name, each, "line", colour) for number, each in enumerate(lines)]


def _draw(title: str, y_title: str, curves: Sequence[Series]) -> Chart:
    words = [f"{each.name} from {each.points[0][1]:.3g} to {each.points[-1][1]:.3g}" for each in curves if each.name]
    return Chart(title[0].upper() + title[1:], "; ".join(words), "epoch", y_title or "score", curves)


def count_confusions(judged: Judged) -> dict[str, Any] | None:
    """`matrix` of C rows, of the true class, with (count, share of the row) by answer; of many classes `pairs`."""
    matrix, names = judged.figures.get("confusion_matrix"), judged.table.label_names
    if matrix is None:
        return None
    if len(names) <= MAX_CLASSES:
        return {"names": names, "matrix": [[(n, n / max(1, sum(row))) for n in row] for row in matrix], "pairs": []}
    counts = Counter({(a, b): n for a, row in zip(names, matrix, strict=True) for b, n in zip(names, row, strict=True)})
    pairs = [[a, b, count] for (a, b), count in counts.most_common() if a != b and count][: 2 * MAX_CLASSES]
    return {"names": names, "matrix": [], "pairs": pairs}


def tabulate_classes(judged: Judged) -> list[list[object]]:
    """Of each class its rows, how often it is answered, precision and recall (Wilson), F1 (bootstrap over rows)."""
    if judged.task_name == "regression":
        return []
    names = judged.table.label_names
    known, given = (_one_hot(each, len(names)) for each in (judged.table.labels, judged.table.answers))

    def score(weights: Floats) -> Scores:
        f1 = 2 * (weights @ (known * given)) / np.maximum(weights @ (known + given), 1)
        return dict(zip(names, f1.T, strict=True))

    intervals = find_intervals(resample(score, len(known), cost=len(names)))
    rows = []
    for number, name in enumerate(names):
        right, found = known[:, number] * given[:, number], judged.figures["per_class"][name]
        precision, recall = (
            measure(right[each[:, number] > 0]) if each[:, number].any() else Figure(None) for each in (given, known)
        )
        counts = [int(each[:, number].sum()) for each in (known, given)]
        rows.append([name, *counts, precision, recall, Figure(found["f1"], intervals[name])])
    return rows


def _one_hot(values: Any, num_classes: int) -> Floats:
    return np.eye(num_classes)[values] if values.ndim == 1 else values


def draw_calibration(judged: Judged) -> list[Chart]:
    """The reliability diagram, and the accuracy of the most confident rows by how many they are."""
    if judged.task_name != "single_label":
        return []
    values, labels = judged.table.probabilities, judged.table.labels
    bins = reliability_bins(values, labels)
    pairs = zip(bins["confidence"], bins["accuracy"], bins["counts"], strict=True)
    points = [(confidence, accuracy) for confidence, accuracy, count in pairs if count]
    diagonal = Series("means what it says", [(0, 0), (1, 1)], "dashed", 5)
    words = f"Expected calibration error {judged.figures['ece']:.3f}, over {len(points)} bins with rows."
    line = [Series("accuracy", points, "line", 1), Series("", points, "points", 1)]
    reliability = Chart("Reliability", words, "confidence", "accuracy", [diagonal, *line], (0, 1), (0, 1))
    confidence = values.max(axis=1)
    right = judged.scores[np.argsort(-confidence, kind="stable")]
    ends = sorted({max(1, round(len(right) * share / 50)) for share in range(1, 51)})
    kept = [(end / len(right), measure(right[:end])) for end in ends if end >= min(20, len(right))]
    mean = [(share, figure.value or 0) for share, figure in kept]
    edges = [[(share, (figure.interval or (0, 0))[place]) for share, figure in kept] for place in (0, 1)]
    half = next((figure for share, figure in kept if share >= 0.5), kept[-1][1])
    words = f"The most confident half is right in {half} of its rows, all in {kept[-1][1]}."
    series = [Series("95 % interval", [*edges[0], *edges[1][::-1]], "band", 1), Series("accuracy", mean, "line", 1)]
    return [
        reliability,
        Chart(
            "Answering the most confident rows alone",
            words,
            "share of rows answered",
            "accuracy of the answered",
            series,
            (0, 1),
        ),
    ]


def draw_numbers(judged: Judged) -> list[Chart]:
    """Of a regression: answers over labels."""
    if judged.task_name != "regression":
        return []
    step = math.ceil(len(judged.table.guids) / MAX_POINTS)
    points = list(zip(judged.table.labels[::step].tolist(), judged.table.answers[::step].tolist(), strict=True))
    ends = (min(map(min, points)), max(map(max, points)))
    series = [
        Series("right", [(ends[0], ends[0]), (ends[1], ends[1])], "dashed", 5),
        Series("rows", points, "points", 1),
    ]
    return [Chart("Answers over labels", f"{len(points)} rows.", "label", "answer", series, ends, ends)]


def judge_inputs(judged: Judged, alone: Mapping[str, PredictionTable]) -> dict[str, Any] | None:
    """The scores of text alone and picture alone beside both; and contributions by class (Shapley values)."""
    if not alone:
        return None
    scores = list(judged.task.scores)
    rows: list[list[object]] = [["both", *(figure_of(judged.figures, name) for name in scores)]]
    for name, title in INPUT_TITLES.items():
        if name != "none":
            each = alone[name]
            figures = score_answers(each.probabilities, each.labels, each.answers, each.label_names)
            rows.append([title, *(figure_of(figures, score) for score in scores)])
    found: dict[str, Any] = {"scores": rows, "contributions": [], "remarks": []}
    if judged.task_name == "single_label":
        outputs = {"full": judged.table.probabilities} | {name: each.probabilities for name, each in alone.items()}
        summary = summarise_contributions(compute_contributions(outputs), judged.table.label_names)
        keys = ("shapley_text", "shapley_image", "synergy", "changed_without_text", "changed_without_image")
        for label, each in {**summary["per_class"], "all": summary["overall"]}.items():
            found["contributions"].append([label, each["rows"], *(Figure(each.get(key)) for key in keys)])
        found["remarks"] = summary["remarks"]
    return found


def tabulate_robustness(folder: RunFolder) -> tuple[list[list[object]], Sequence[str]]:
    """The conditions of evaluate.py --robustness and its remarks, where it has run."""
    path = folder.path / "robustness.json"
    if not path.is_file():
        return [], []
    found = read_json(path, RobustnessFile)
    conditions = found["conditions"].values()
    rows = [
        [
            each.get("family", ""),
            Figure(each.get("level"), digits=1),
            *(figure_of(each, key) for key in ("accuracy", "macro_f1")),
        ]
        for each in conditions
    ]
    return rows, found["remarks"]


def count_faults(path: Path) -> Iterator[list[object]]:
    """Reason, action, number of rows and the first of them, of a quarantine.csv."""
    content = read_bounded(path, MAX_BYTES) if path.is_file() else b""
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8", "replace"))))
    counts = Counter((row.get("reason") or "", row.get("action") or "") for row in rows)
    for (reason, action), count in counts.most_common():
        first = next(row for row in rows if (row.get("reason") or "", row.get("action") or "") == (reason, action))
        yield [reason, action, count, first.get("guid") or "", first.get("detail") or ""]


def describe_origin(folder: RunFolder, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How to make the run again: versions, hashes, and the flags without folders of this machine."""
    environment = sections["environment"]
    hashes = [
        [name, str(value)] for name, value in environment.items() if name.endswith(("sha256", "fingerprint", "commit"))
    ]
    flags = [
        [name, _shorten(value)]
        for group in ("model", "data", "training")
        for name, value in sections[group].items()
        if value not in (None, [], {}, "")
    ]
    versions = [["python", environment.get("python", "")], *map(list, environment.get("versions", {}).items())]
    others = ("device", "mixed_precision", "world_size", "distributed")
    machine = [[name, str(environment[name])] for name in others if name in environment]
    return {"hashes": hashes, "flags": flags, "versions": versions + machine, "name": folder.path.name}


def _shorten(value: Any) -> str:
    """A value as text, of absolute paths the last part."""
    if isinstance(value, list):
        return " ".join(map(_shorten, value))
    return Path(value).name if isinstance(value, str) and value.startswith("/") else str(value)
