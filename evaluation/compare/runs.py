"""The runs to compare: their predictions, brought to the same rows, and what they cost."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_utils.system.schema import read_json
from evaluation.compare.origins import Origin, read_origin
from evaluation.scores.folds_folder import OUT_OF_FOLD_FILE
from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder
from run_files.schema import MetricsFile

_SEED_FILE = re.compile(r"predictions_oof_seed(-?\d+)\.csv")
# What 8 decimals and a mean in float32 can do to a probability.
MEAN_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Cost:
    """Of a run, as far as its metrics.json says: counts of parameters and the seconds of training; else None."""

    total: int | None = None
    trainable: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ComparedRun:
    """A run and its predictions.

    Attributes:
        name: unique among the compared.
        path: as given.
        kind: folds (train.py --folds), split (one validation part) or file (a bare file of predictions).
        table: of the labelled rows; for a folds run the mean probabilities over its seeds.
        seeds: a table per seed of a folds run, of the same rows in the same order; else empty.
        cost: from metrics.json.
        chosen_by: metric by which the best epoch was chosen on the very rows of `table`, or None.
        origin: the data and the folds; of a bare file what the folder that it lies in says.
    """

    name: str
    path: str
    kind: Literal["folds", "split", "file"]
    table: PredictionTable
    seeds: Mapping[str, PredictionTable]
    cost: Cost
    chosen_by: str | None = None
    origin: Origin = field(default_factory=Origin)

    @property
    def judged(self) -> list[PredictionTable]:
        """A table per seed: what the run's own figures are the means of."""
        return list(self.seeds.values()) or [self.table]

    def on_rows(self, guids: Sequence[str], label_names: Sequence[str]) -> ComparedRun:
        """The same with these rows and this order of the classes in every table."""
        places = {guid: row for row, guid in enumerate(self.table.guids)}
        rows = np.array([places[guid] for guid in guids], dtype=np.int64)
        table, *seeds = (each.with_classes(label_names).select(rows) for each in (self.table, *self.seeds.values()))
        return replace(self, table=table, seeds=dict(zip(self.seeds, seeds, strict=True)))


def load_runs(paths: Sequence[str]) -> list[ComparedRun]:
    """Read two or more runs; see `load_run`.

    Raises:
        InputError: one run alone, the same run twice, or a run that can't be read.
    """
    if len(paths) < 2:
        raise InputError(f"Got {len(paths)} run to compare; pass two or more.")
    for number, path in enumerate(paths):
        same = [other for other in paths[:number] if os.path.realpath(other) == os.path.realpath(path)]
        if same:
            raise InputError(f"Got the run {path!r} twice; pass each run once.")
    named = zip(paths, name_runs(paths), strict=True)
    return [replace(load_run(path, name), origin=_find_origin(Path(path))) for path, name in named]


def name_runs(paths: Sequence[str]) -> list[str]:
    """The folders' (or files') names, with as many folders before them as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts[1:] or ("root",) for path in paths]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        again = [
            names.count(name) > 1 and depth < len(part) for name, depth, part in zip(names, depths, parts, strict=True)
        ]
        if not any(again):
            return names
        depths = [depth + more for depth, more in zip(depths, again, strict=True)]


def load_run(path: str, name: str) -> ComparedRun:
    """Read the labelled predictions and the cost of a folds run, an ordinary run or a bare file of predictions.

    Raises:
        InputError: there are no predictions or no labels, or a file is damaged.
    """
    source = Path(path)
    if source.is_file():
        return ComparedRun(name, path, "file", _read_labelled(source), {}, Cost())
    run = RunFolder(source)
    seeds = _find_seed_files(source)
    if (source / OUT_OF_FOLD_FILE).is_file():
        table = _read_labelled(source / OUT_OF_FOLD_FILE)
        tables = {seed: _read_labelled(file) for seed, file in seeds.items()}
        _check_seeds(source, table, tables)
        return ComparedRun(name, path, "folds", table, tables, _read_cost(run))
    if seeds:
        raise InputError(f"The run {path!r} has no {OUT_OF_FOLD_FILE}: it is not finished. Run its command again.")
    if not run.predictions_file.is_file():
        raise InputError(
            f"Got {path!r}, which has no predictions: neither {OUT_OF_FOLD_FILE} (train.py --folds) nor "
            f"{run.predictions_file.name} (train.py with validation rows). Pass the --output_dir of a finished run, or "
            "a file of predictions."
        )
    best = _read_metrics(run).get("best") or {}
    table = _read_labelled(run.predictions_file)
    return ComparedRun(name, path, "split", table, {}, _read_cost(run), chosen_by=best.get("metric"))


def _find_origin(path: Path) -> Origin:
    return read_origin(path.parent if path.is_file() else path)


def align_runs(runs: Sequence[ComparedRun], *, common_rows: bool = False) -> list[ComparedRun]:
    """The runs on the same rows, sorted by guid, with the classes in the first run's order.

    Args:
        runs: two or more.
        common_rows: drop the rows that not all of them judge.

    Raises:
        InputError: the runs have other classes, rows or labels.
    """
    names = runs[0].table.label_names
    for run in runs[1:]:
        if set(run.table.label_names) != set(names):
            raise InputError(
                f"The runs have other classes: {runs[0].name} has {', '.join(names)} and {run.name} has "
                f"{', '.join(run.table.label_names)}. Compare runs with the same --labels."
            )
    common = set.intersection(*(set(run.table.guids) for run in runs))
    if not common or not (common_rows or all(len(run.table.guids) == len(common) for run in runs)):
        raise InputError(_other_rows(runs, len(common)))
    aligned = [run.on_rows(sorted(common), names) for run in runs]
    for run in aligned[1:]:
        _check_labels(aligned[0], run)
    return aligned


def _other_rows(runs: Sequence[ComparedRun], num_common: int) -> str:
    counts = ", ".join(f"{run.name} {len(run.table.guids):,}" for run in runs)
    way_out = f", or add --common_rows to compare the {num_common:,} rows" if num_common else ""
    return (
        f"The runs do not judge the same rows: {counts}, of which {num_common:,} are common to all. Train them on the "
        f"same split (the same --split_file, or the same --folds, data and --seed){way_out}."
    )


def _check_labels(first: ComparedRun, other: ComparedRun) -> None:
    differ = np.flatnonzero(first.table.labels != other.table.labels)
    if len(differ):
        row = int(differ[0])
        ours, theirs = (run.table.label_names[run.table.labels[row]] for run in (first, other))
        raise InputError(
            f"{len(differ):,} of {len(first.table.guids):,} rows have one label in {first.name} and another one in "
            f"{other.name}, first the guid {first.table.guids[row]!r}: {ours!r} and {theirs!r}. Train the runs on the "
            "same list."
        )


def _find_seed_files(folder: Path) -> dict[str, Path]:
    """The files of a folds run by seed, the smallest first."""
    matches = ((_SEED_FILE.fullmatch(path.name), path) for path in folder.glob("predictions_oof_seed*.csv"))
    found = {match[1]: path for match, path in matches if match}
    return {seed: found[seed] for seed in sorted(found, key=int)}


def _check_seeds(folder: Path, table: PredictionTable, seeds: Mapping[str, PredictionTable]) -> None:
    """The figures are of the seeds and the tests of their mean: a file of another training must not be among them."""
    for seed, other in seeds.items():
        if other.guids != table.guids or (other.labels != table.labels).any() or other.label_names != table.label_names:
            raise _stale(folder, f"the rows of seed {seed} are not those of {OUT_OF_FOLD_FILE}")
    if seeds:
        mean = np.mean([each.probabilities for each in seeds.values()], axis=0)
        if np.abs(mean - table.probabilities).max() > MEAN_TOLERANCE:
            raise _stale(folder, f"{OUT_OF_FOLD_FILE} is not the mean of its seeds {', '.join(seeds)}")


def _stale(folder: Path, fault: str) -> InputError:
    return InputError(
        f"The files of {str(folder)!r} are not of one training: {fault}. Run its command again, or remove what is "
        "left of another one."
    )


def _read_labelled(path: Path) -> PredictionTable:
    table = read_predictions_csv(path)
    labelled = table.labelled()
    if not labelled.guids:
        raise InputError(
            f"None of the {len(table.guids)} rows of {str(path)!r} has a label; there is nothing to compare."
        )
    return labelled


def _read_cost(run: RunFolder) -> Cost:
    metrics = _read_metrics(run)
    parameters, training = metrics.get("parameters") or {}, metrics.get("training") or {}
    # After a resumption they are the last launch's alone.
    seconds = None if training.get("resumed_at_step") is not None else training.get("seconds")
    return Cost(parameters.get("total"), parameters.get("trainable"), seconds)


def _read_metrics(run: RunFolder) -> Mapping[str, Any]:
    """metrics.json, or nothing where there is none."""
    try:
        return read_json(run.metrics_file, MetricsFile)
    except FileNotFoundError:
        return {}
