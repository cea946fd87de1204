"""The runs to compare: their predictions, brought to the same rows, and what they cost. Legend: N rows, S seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


class Origin(NamedTuple):
    """Hash of a run's data and their preparation, the fold that held out each guid, seed of the folds; if known."""

    fingerprint: str | None = None
    fold_of: Mapping[str, int] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ComparedRun:
    """A run of folds, of one validation part (split), or a bare file, and its predictions of the labelled rows.

    `table` has the mean probabilities over the seeds of a folds run, `seeds` those of each, of the same rows. The
    origin of a bare file is what the folder that it lies in says; `metrics` are those of metrics.json.
    """

    name: str
    path: str
    kind: Literal["folds", "split", "file"]
    table: PredictionTable
    origin: Origin
    seeds: Mapping[str, PredictionTable] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_seeds(self) -> int:
        """How many trainings it is of; 1 for a run without folds."""
        return len(self.seeds) or 1

    @property
    def chosen_by(self) -> str | None:
        """The metric by which the best epoch was chosen on the very rows of `table`."""
        return (self.metrics.get("best") or {}).get("metric") if self.kind == "split" else None

    @property
    def cost(self) -> dict[str, float | None]:
        """Total and trainable parameters and the seconds of training, as far as metrics.json says."""
        parameters, training = (self.metrics.get(name) or {} for name in ("parameters", "training"))
        # After a resumption the seconds are the last launch's alone.
        seconds = None if training.get("resumed_at_step") is not None else training.get("seconds")
        return {"total": parameters.get("total"), "trainable": parameters.get("trainable"), "seconds": seconds}

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
    if len(paths) < 2 or len(set(map(os.path.realpath, paths))) < len(paths):
        raise InputError(f"Got {', '.join(paths)} to compare; pass two or more runs, none of them twice.")
    return [read_run(path, name) for path, name in zip(paths, name_runs(paths), strict=True)]


def name_runs(paths: Sequence[str]) -> list[str]:
    """The folders' (or files') names, with as many folders before them as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts[1:] or ("root",) for path in paths]

    def shorten(part: tuple[str, ...]) -> tuple[str, ...]:
        ends = (part[-depth:] for depth in range(1, len(part)))
        return next((end for end in ends if sum(other[-len(end) :] == end for other in parts) == 1), part)

    return ["/".join(shorten(part)) for part in parts]


def read_run(path: str, name: str) -> ComparedRun:
    """Read a folds run, an ordinary run or a bare file of predictions."""
    source = Path(path)
    if source.is_file():
        return ComparedRun(name, path, "file", _read_labelled(source), _read_origin(source.parent))
    run, seed_files = RunFolder(source), find_seed_files(source) if source.is_dir() else {}
    metrics = run.load_metrics() if run.metrics_file.exists() else {}
    if (source / OUT_OF_FOLD_FILE).is_file():
        table = _read_labelled(source / OUT_OF_FOLD_FILE)
        seeds = {seed: _read_labelled(file) for seed, file in seed_files.items()}
        _check_seeds(source, table, seeds)
        return ComparedRun(name, path, "folds", table, _read_origin(source), seeds, metrics)
    if seed_files:
        raise InputError(f"The run {path!r} has no {OUT_OF_FOLD_FILE}: it is not finished. Run its command again.")
    if not run.predictions_file.is_file():
        raise InputError(
            f"Got {path!r}, which has no predictions: neither {OUT_OF_FOLD_FILE} (train.py --folds) nor "
            f"{run.predictions_file.name} (train.py with validation rows). Pass the --output_dir of a finished run, or "
            "a file of predictions."
        )
    return ComparedRun(name, path, "split", _read_labelled(run.predictions_file), _read_origin(source), metrics=metrics)


def align_runs(runs: Sequence[ComparedRun], *, common_rows: bool = False) -> list[ComparedRun]:
    """The runs on the same rows, sorted by guid, with the classes in the first run's order.

    `InputError` where they have other classes, labels or, without common_rows, other rows.
    """
    tables = {run.name: run.table for run in runs}
    check_same_classes({name: table.label_names for name, table in tables.items()})
    remedy = "Train them on the same rows (the same data, --on_bad_pair and --split_file, or --folds and --seed)"
    judged = {name: table.label_of_guids() for name, table in tables.items()}
    guids = check_same_rows(judged, remedy, common_rows=common_rows)
    return [run.on_rows(guids, runs[0].table.label_names) for run in runs]


def check_same_classes(classes: Mapping[str, Sequence[str]]) -> None:
    """`InputError` where runs, by their names, have other classes."""
    first, *others = classes
    for other in others:
        if set(classes[other]) != set(classes[first]):
            raise InputError(
                f"The runs have other classes: {first} has {', '.join(classes[first])} and {other} has "
                f"{', '.join(classes[other])}. Compare runs with the same --labels."
            )


def check_same_rows(
    judged: Mapping[str, Mapping[str, str]], remedy: str, *, common_rows: bool | None = None
) -> list[str]:
    """The guids of the rows that all runs judge, sorted.

    Args:
        judged: the labels of each run's rows by their guids, by the run's name.
        remedy: what to do where the rows are not the same.
        common_rows: whether some may judge rows that others don't; None where that can't be asked for.

    Raises:
        InputError: the runs judge other rows, or have other labels for them.
    """
    common = sorted(set.intersection(*map(set, judged.values())))
    if not common or not (common_rows or all(len(rows) == len(common) for rows in judged.values())):
        counts = ", ".join(f"{name} {len(rows):,}" for name, rows in judged.items())
        can_ask = common and common_rows is not None
        way_out = f", or add --common_rows to compare the {len(common):,} rows" if can_ask else ""
        raise InputError(
            f"The runs do not judge the same rows: {counts}, of which {len(common):,} are common to all. "
            f"{remedy}{way_out}."
        )
    first, *others = judged
    for other in others:
        differ = [guid for guid in common if judged[first][guid] != judged[other][guid]]
        if differ:
            ours, theirs = judged[first][differ[0]], judged[other][differ[0]]
            raise InputError(
                f"{len(differ):,} of {len(common):,} rows have one label in {first} and another one in {other}, first "
                f"the guid {differ[0]!r}: {ours!r} and {theirs!r}. Train the runs on the same list."
            )
    return common


def _check_seeds(folder: Path, table: PredictionTable, seeds: Mapping[str, PredictionTable]) -> None:
    """The scores are of the seeds and the tests of their mean: a file of another training must not be among them."""
    rows = (table.guids, table.label_names, table.labels.tolist())
    is_one = all((each.guids, each.label_names, each.labels.tolist()) == rows for each in seeds.values())
    if is_one and seeds:
        mean = np.mean([each.probabilities for each in seeds.values()], axis=0)
        is_one = bool(np.abs(mean - table.probabilities).max() <= MEAN_TOLERANCE)
    if not is_one:
        raise InputError(
            f"The files of {str(folder)!r} are not of one training: {OUT_OF_FOLD_FILE} has other rows than, or is not "
            f"the mean of, its seeds {', '.join(seeds)}. Run its command again, or remove what is left of another one."
        )


def _read_origin(folder: Path) -> Origin:
    """Of a folder of train.py or of baselines; of another one nothing is known."""
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
