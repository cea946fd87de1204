"""The runs to compare: their predictions, brought to the same rows, and what they cost. Legend: N rows, S seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_utils.splits.split_file import load_split
from evaluation.scores.metrics import SCORES, classification_metrics
from evaluation.scores.scoring import SeedScores, score_seeds
from modeling.errors import InputError
from run_files.folds_folder import OUT_OF_FOLD_FILE, find_seed_files
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder

# What 8 decimals and a mean in float32 can do to a probability.
MEAN_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Origin:
    """Of a run; None stands for what its folder doesn't say.

    Attributes:
        fingerprint: hash of the data and of their preparation.
        fold_of: {guid: fold that held it out}.
        seed: by which the folds were drawn.
    """

    fingerprint: str | None = None
    fold_of: Mapping[str, int] | None = None
    seed: int | None = None

    def number_folds(self, guids: Sequence[str]) -> tuple[int | None, ...]:
        """The fold of each row, numbered as they come, so that their order is no matter; None for a row of none."""
        numbers: dict[int | None, int | None] = {None: None}
        return tuple(numbers.setdefault((self.fold_of or {}).get(guid), len(numbers)) for guid in guids)


@dataclass(frozen=True)
class ComparedRun:
    """A run and its predictions.

    Attributes:
        name: unique among the compared.
        path: as given.
        kind: folds (train.py --folds), split (one validation part) or file (a bare file of predictions).
        table: of the labelled rows; for a folds run the mean probabilities over its seeds.
        seeds: a table per seed of a folds run, of the same rows in the same order; else empty.
        cost: total and trainable parameters and the seconds of training, as far as metrics.json says.
        chosen_by: metric by which the best epoch was chosen on the very rows of `table`, or None.
        origin: the data and the folds; of a bare file what the folder that it lies in says.
    """

    name: str
    path: str
    kind: Literal["folds", "split", "file"]
    table: PredictionTable
    origin: Origin
    seeds: Mapping[str, PredictionTable] = field(default_factory=dict)
    cost: Mapping[str, float | None] = field(default_factory=lambda: _read_cost({}))
    chosen_by: str | None = None

    @property
    def num_seeds(self) -> int:
        """How many trainings it is of; 1 for a run without folds."""
        return len(self.seeds) or 1

    @cached_property
    def scores(self) -> SeedScores:
        """Of each seed."""
        return score_seeds(list(self.seeds.values()) or [self.table])

    @cached_property
    def averaged(self) -> dict[str, float]:
        """The scores of the seeds' mean probabilities; empty for a run of less than two seeds."""
        if self.num_seeds == 1:
            return {}
        metrics = classification_metrics(self.table.probabilities, self.table.labels, self.table.label_names)
        return {name: metrics[name] for name in SCORES}

    def on_rows(self, guids: Sequence[str], label_names: Sequence[str]) -> ComparedRun:
        """The same with these rows and this order of the classes in every table."""
        places = {guid: row for row, guid in enumerate(self.table.guids)}
        rows = np.array([places[guid] for guid in guids], dtype=np.int64)
        table, *seeds = (each.with_classes(label_names).select(rows) for each in (self.table, *self.seeds.values()))
        return replace(self, table=table, seeds=dict(zip(self.seeds, seeds, strict=True)))


def read_runs(paths: Sequence[str]) -> list[ComparedRun]:
    """`read_run` of two or more runs; `InputError` for one alone or the same twice."""
    if len(paths) < 2:
        raise InputError(f"Got {len(paths)} run to compare; pass two or more.")
    real = [os.path.realpath(path) for path in paths]
    for number, path in enumerate(paths):
        if real[number] in real[:number]:
            raise InputError(f"Got the run {path!r} twice; pass each run once.")
    return [read_run(path, name) for path, name in zip(paths, name_runs(paths), strict=True)]


def name_runs(paths: Sequence[str]) -> list[str]:
    """The folders' (or files') names, with as many folders before them as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts[1:] or ("root",) for path in paths]

    def shorten(part: tuple[str, ...]) -> tuple[str, ...]:
        ends = (part[-depth:] for depth in range(1, len(part)))
        return next((end for end in ends if sum(other[-len(end) :] == end for other in parts) == 1), part)

    return ["/".join(shorten(part)) for part in parts]


def read_run(path: str, name: str) -> ComparedRun:
    """Read the labelled predictions and the cost of a folds run, an ordinary run or a bare file of predictions.

    Raises:
        InputError: there are no predictions or no labels, or a file is damaged.
    """
    source = Path(path)
    if source.is_file():
        return ComparedRun(name, path, "file", _read_labelled(source), _read_origin(source.parent))
    run, seed_files = RunFolder(source), find_seed_files(source) if source.is_dir() else {}
    if (source / OUT_OF_FOLD_FILE).is_file():
        table = _read_labelled(source / OUT_OF_FOLD_FILE)
        seeds = {seed: _read_labelled(file) for seed, file in seed_files.items()}
        _check_seeds(source, table, seeds)
        return ComparedRun(name, path, "folds", table, _read_origin(source), seeds, _read_cost(_read_metrics(run)))
    if seed_files:
        raise InputError(f"The run {path!r} has no {OUT_OF_FOLD_FILE}: it is not finished. Run its command again.")
    if not run.predictions_file.is_file():
        raise InputError(
            f"Got {path!r}, which has no predictions: neither {OUT_OF_FOLD_FILE} (train.py --folds) nor "
            f"{run.predictions_file.name} (train.py with validation rows). Pass the --output_dir of a finished run, or "
            "a file of predictions."
        )
    table, metrics = _read_labelled(run.predictions_file), _read_metrics(run)
    chosen_by = (metrics.get("best") or {}).get("metric")
    return ComparedRun(name, path, "split", table, _read_origin(source), cost=_read_cost(metrics), chosen_by=chosen_by)


def align_runs(runs: Sequence[ComparedRun], *, common_rows: bool = False) -> list[ComparedRun]:
    """The runs on the same rows, sorted by guid, with the classes in the first run's order.

    Raises:
        InputError: the runs have other classes, rows (but for `common_rows`, which drops those) or labels.
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
        counts = ", ".join(f"{run.name} {len(run.table.guids):,}" for run in runs)
        way_out = f", or add --common_rows to compare the {len(common):,} rows" if common else ""
        raise InputError(
            f"The runs do not judge the same rows: {counts}, of which {len(common):,} are common to all. Train them on "
            f"the same split (the same --split_file, or the same --folds, data and --seed){way_out}."
        )
    aligned = [run.on_rows(sorted(common), names) for run in runs]
    for run in aligned[1:]:
        _check_labels(aligned[0], run)
    return aligned


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


def _check_seeds(folder: Path, table: PredictionTable, seeds: Mapping[str, PredictionTable]) -> None:
    """The scores are of the seeds and the tests of their mean: a file of another training must not be among them."""
    fault = None
    for seed, other in seeds.items():
        if other.guids != table.guids or (other.labels != table.labels).any() or other.label_names != table.label_names:
            fault = f"the rows of seed {seed} are not those of {OUT_OF_FOLD_FILE}"
    if seeds and not fault:
        mean = np.mean([each.probabilities for each in seeds.values()], axis=0)
        if np.abs(mean - table.probabilities).max() > MEAN_TOLERANCE:
            fault = f"{OUT_OF_FOLD_FILE} is not the mean of its seeds {', '.join(seeds)}"
    if fault:
        raise InputError(
            f"The files of {str(folder)!r} are not of one training: {fault}. Run its command again, or remove what is "
            "left of another one."
        )


def _read_origin(folder: Path) -> Origin:
    """Of a folder of train.py or of baselines; of another one nothing is known.

    Raises:
        InputError: a split of the folder is damaged.
    """
    run = RunFolder(folder)
    if not run.is_run():
        return Origin()
    sections = run.load_arguments()
    splits = sorted(run.fold_split_file(0).parent.glob("fold-*.json"))
    fold_of = {guid: number for number, path in enumerate(splits) for guid in load_split(path).test}
    fingerprint = sections["environment"].get("data_fingerprint")
    return Origin(fingerprint, fold_of or None, sections["training"].get("seed"))


def _read_labelled(path: Path) -> PredictionTable:
    table = read_predictions_csv(path)
    labelled = table.labelled()
    if not labelled.guids:
        raise InputError(
            f"None of the {len(table.guids)} rows of {str(path)!r} has a label; there is nothing to compare."
        )
    return labelled


def _read_metrics(run: RunFolder) -> dict[str, Any]:
    return run.load_metrics() if run.metrics_file.exists() else {}


def _read_cost(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    parameters, training = metrics.get("parameters") or {}, metrics.get("training") or {}
    # After a resumption they are the last launch's alone.
    seconds = None if training.get("resumed_at_step") is not None else training.get("seconds")
    return {"total": parameters.get("total"), "trainable": parameters.get("trainable"), "seconds": seconds}
