"""What the held-out predictions of a cross-validated run say: temperatures and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from data_utils.console.tables import format_interval
from evaluation.scores.calibration import apply_temperature, draw_reliability, fit_out_of_fold
from evaluation.scores.scoring import score_answers, score_seeds, task_of_figures
from evaluation.scores.tasks import name_task
from evaluation.scores.thresholds import answer_rows
from run_files.folds_folder import FoldsFolder
from run_files.output import write_figure, write_json
from run_files.predictions_csv import PredictionTable


def calibrate_folds(folder: FoldsFolder) -> dict[int, float]:
    """Write calibration.json and reliability.png; returns the temperature of each fold's models.

    It is the one that fits what the models of the other folds said of the rows that they held out.
    """
    tables = [_join_folds(folder, seed, {}) for seed in folder.seeds]
    fold_of = folder.fold_of_guids()
    found = fit_out_of_fold(
        np.concatenate([table.probabilities for table in tables]),
        np.concatenate([table.labels for table in tables]),
        [fold_of[guid] for table in tables for guid in table.guids],
        rows=np.tile(np.arange(len(tables[0].guids)), len(tables)),
    )
    write_json(folder.path / "calibration.json", found)
    write_figure(folder.path / "reliability.png", draw_reliability(found["before"], found["after"]))
    return {int(fold): temperature for fold, temperature in found["fold_temperatures"].items()}


def write_out_of_fold(folder: FoldsFolder, temperatures: Mapping[int, float]) -> dict[str, Any]:
    """Join the members' held-out predictions, scaled by the temperatures of their folds, write and score them.

    Returned are mean and std over seeds, intervals, the scores of each seed, and those of the mean probabilities.
    """
    tables = [_join_folds(folder, seed, temperatures) for seed in folder.seeds]
    for seed, table in zip(folder.seeds, tables, strict=True):
        table.write(folder.predictions_oof_file_of(seed))
    means, labels = np.mean([table.probabilities for table in tables], axis=0), tables[0].labels
    averaged = replace(tables[0], probabilities=means, answers=answer_rows(means, labels))
    averaged.write(folder.predictions_oof_file)
    scores = score_seeds(tables)
    seeds = {
        str(seed): {name: values[number] for name, values in scores.values.items()}
        for number, seed in enumerate(folder.seeds)
    }
    found = {"num_rows": len(averaged.guids), "mean": scores.mean, "std": scores.std, "intervals": scores.intervals}
    figures = score_answers(means, labels, averaged.answers, averaged.label_names)
    return {**found, "seeds": seeds, "averaged": figures}


def format_out_of_fold(scores: Mapping[str, Any]) -> str:
    """The headline of `write_out_of_fold` as plain text."""
    lines = [f"out of fold, {scores['num_rows']} rows, {len(scores['seeds'])} seeds"]
    task, std = task_of_figures(scores["averaged"]), scores["std"]
    for name in (name for name in task.interval_scores if name in scores["mean"]):
        line = f"{task.scores[name]} {format_interval(scores['mean'][name], scores['intervals'].get(name))}"
        if std[name] is not None:
            averaged = f"probabilities averaged over seeds {scores['averaged'][name]:.3f}"
            line += f" ± {std[name]:.3f} over seeds; {averaged}"
        lines.append(line)
    return "\n".join(lines)


def _join_folds(folder: FoldsFolder, seed: int, temperatures: Mapping[int, float]) -> PredictionTable:
    """The held-out rows of one seed's folds."""
    tables = {member.fold: member.read_held_out() for member in folder.members(seed)}
    if name_task(tables[0].labels) == "single_label":
        tables = {
            fold: replace(table, probabilities=apply_temperature(table.probabilities, temperatures.get(fold, 1.0)))
            for fold, table in tables.items()
        }
    return PredictionTable.join(list(tables.values()))
