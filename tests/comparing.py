"""Runs to compare: predictions of invented models, in the files that train.py writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from run_files.output import write_json
from run_files.predictions_csv import write_predictions_csv

NAMES = ("negative", "neutral", "positive")
NUM_ROWS = 600


def draw_labels(num_rows: int = NUM_ROWS) -> np.ndarray:
    return np.random.default_rng(0).choice(3, size=num_rows, p=[0.3, 0.1, 0.6])


def draw_probabilities(skill: float, seed: int, num_rows: int = NUM_ROWS) -> np.ndarray:
    """(N, 3) of a model that shares most of its errors with all others."""
    shared = np.random.default_rng(1).normal(size=(num_rows, 3))
    scores = shared + 0.5 * np.random.default_rng(seed).normal(size=(num_rows, 3))
    scores = np.exp(scores + skill * np.eye(3)[draw_labels(num_rows)])
    return scores / scores.sum(axis=1, keepdims=True)


def make_answers(wrong: Sequence[int], labels: np.ndarray) -> np.ndarray:
    """Probabilities of a model that is wrong in these rows only."""
    answers = labels.copy()
    answers[wrong] = (answers[wrong] + 1) % 3
    return 0.1 + 0.7 * np.eye(3)[answers]


def write_run(folder: Path, name: str, *tables: np.ndarray, folds: bool = False, **options: object) -> str:
    """An ordinary run (one table of probabilities) or a folds run (a table per seed, from 9 on); returns its path.

    Options: labels, guids, names (of the classes) and metrics (for metrics.json).
    """
    labels = options.get("labels", draw_labels(len(tables[0])))
    guids = options.get("guids", [f"{number:04d}" for number in range(len(labels))])
    names = options.get("names", NAMES)
    if folds:
        for seed, table in enumerate(tables, start=9):
            write_predictions_csv(folder / name / f"predictions_oof_seed{seed}.csv", guids, labels, table, names)
    path = folder / name / ("predictions_oof.csv" if folds else "predictions_val.csv")
    write_predictions_csv(path, guids, labels, np.mean(tables, axis=0), names)
    if "metrics" in options:
        write_json(folder / name / "metrics.json", options["metrics"])
    return str(folder / name)
