"""The models of a run: the one of an ordinary run, or all of a cross-validated one, each judging what it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from evaluation.predict.inference import Outputs, Step, run_inference
from evaluation.predict.joint_models import join_models
from evaluation.predict.loaded_run import LoadedRun, load_run
from evaluation.scores.calibration import apply_temperature
from evaluation.scores.metrics import Floats, Integers
from evaluation.scores.tasks import Answers
from modeling.choices import DEFAULT_THRESHOLD
from modeling.ensemble import JointModels
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder
from run_files.predictions_csv import read_predictions_csv
from run_files.run_folder import RunFolder

T = TypeVar("T")
HELD_OUT = "test"
SPLIT_TITLES = {"val": "validation", "train": "training part", "test": "test part", "all": "all parts"}
# The validation rows of an ordinary run are dealt into so many parts to judge by the one what the others chose.
NUM_PARTS = 5
Part = tuple[LoadedRun, Dataset]
# A run and its rows -> what `JointModels` are asked of a batch: {name: (B, M, C)}.
MakeStep = Callable[[LoadedRun, Dataset], Step[JointModels]]


@dataclass(frozen=True)
class Ensemble:
    """The models of a run."""

    folder: RunFolder
    runs: tuple[LoadedRun, ...]

    @property
    def first(self) -> LoadedRun:
        """One of them, for what they have in common."""
        return self.runs[0]

    @property
    def is_cross_validated(self) -> bool:
        """Whether there are folds, so that each row is judged by the models that held it out."""
        return isinstance(self.folder, FoldsFolder)

    def choose_split(self, split: str | None) -> str:
        """The part that is judged where none is named: the validation rows, or those that each fold held out."""
        if not self.is_cross_validated:
            return split or "val"
        if split not in (None, HELD_OUT):
            raise InputError(
                f"Got --split {split}, but of a cross-validated run only what each fold held out can be judged: leave "
                f"--split out, or name one of the runs in {self.folder.path / 'members'}."
            )
        return HELD_OUT

    def title(self, split: str) -> str:
        """The part's name for people."""
        return "out of fold" if self.is_cross_validated else SPLIT_TITLES[split]

    def load_once(self, load: Callable[[LoadedRun], T]) -> list[T]:
        """What is loaded for each model; those of the same data, prepared in the same way, share it."""
        found: dict[str, T] = {}
        keys = [run.data_key for run in self.runs]
        for run, key in zip(self.runs, keys, strict=True):
            if key not in found:
                found[key] = load(run)
        return [found[key] for key in keys]

    def load_rows(self, split: str) -> list[Part]:
        """Each model with its rows of a part; the first alone speaks of the data, which are the same for all."""
        if self.first.data.streaming:
            return [(run, run.load_streamed_rows(split)) for run in self.runs]
        pairs = self.load_once(LoadedRun.load_own_pairs)
        return [
            (run, run.select_rows(each, split, quiet=number > 0))
            for number, (run, each) in enumerate(zip(self.runs, pairs, strict=True))
        ]

    def thresholds(self, split: str | None = None) -> Floats | None:
        """Of the classes, (C,), for a list or a part: the models' mean; None where `answer_rows` cross-fits others.

        It does for validation rows, which chose those of the models, and for what folds held out.
        """
        if self.first.config.task != "multi_label" or split == (HELD_OUT if self.is_cross_validated else "val"):
            return None
        own = [run.config.thresholds or [DEFAULT_THRESHOLD] * run.config.num_labels for run in self.runs]
        return np.mean(own, axis=0)

    def read_held_out(self) -> tuple[Floats, Integers, Integers]:
        """Probabilities (N, C), labels (N,) and fold numbers (N,) of the out-of-fold rows, else of the validation rows.

        They are scaled by the models' temperatures, as `evaluate.py` gives them. Validation rows also chose the best
        epoch, and twins among them may come into different parts here; both flatters what is read off.
        """
        folder = self.folder
        if isinstance(folder, FoldsFolder):
            table, fold_of = read_predictions_csv(folder.predictions_oof_file), folder.fold_of_guids()
            unknown = [guid for guid in table.guids if guid not in fold_of]
            if unknown:
                raise InputError(
                    f"{folder.predictions_oof_file} has the guid {unknown[0]!r}, which no fold in "
                    f"{folder.path / 'splits'} holds out: the files are of two runs; copy them again."
                )
            return table.probabilities, table.labels, np.array([fold_of[guid] for guid in table.guids])
        if not folder.predictions_file.is_file():
            raise InputError(
                f"The run {str(folder.path)!r} judged no rows that it wasn't trained on (--val_ratio 0), from which a "
                "threshold could be learned; train with a validation part or with --folds."
            )
        table = read_predictions_csv(folder.predictions_file)
        probabilities = apply_temperature(table.probabilities, self.first.config.temperature)
        return probabilities, table.labels, np.arange(len(table.guids)) % NUM_PARTS


@dataclass(frozen=True)
class EvalResult:
    """What the models said of N rows with their labels: {name: (N, C)}, where several judged a row the mean."""

    guids: tuple[str, ...]
    labels: Answers
    outputs: dict[str, Floats]


def load_ensemble(path: str | Path, **options: Any) -> Ensemble:
    """The models of a run folder, without their weights; see `load_run`."""

    def load(folder: str | Path) -> LoadedRun:
        return load_run(folder, **options)

    folder = FoldsFolder.find(path)
    if folder is None:
        run = load(path)
        return Ensemble(run.folder, (run,))
    folder.check_complete()
    return Ensemble(folder, tuple(load(member.path) for member in folder.members()))


def evaluate_rows(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> EvalResult:
    """What each model says of its rows, each row once: in the list's order for one model, else sorted by guid."""
    guids = [guid for _, rows in parts for guid in rows["guid"][:]]
    labels = np.concatenate([np.asarray(rows["label"][:]) for _, rows in parts])
    outputs = _ask_each(parts, make_step, batch_size=batch_size, accelerator=accelerator)
    stacked = {name: np.concatenate([each[name].numpy() for each in outputs]).astype(float) for name in outputs[0]}
    if len(parts) == 1:
        return EvalResult(tuple(guids), labels, stacked)
    names, first, numbers = np.unique(np.array(guids, dtype=object), return_index=True, return_inverse=True)
    means = {name: np.zeros((len(names), values.shape[1])) for name, values in stacked.items()}
    for name, values in stacked.items():
        np.add.at(means[name], numbers, values)
        means[name] /= np.bincount(numbers)[:, None]
    return EvalResult(tuple(names), labels[first], means)


def predict_rows(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> dict[str, Floats]:
    """What the models say on average of the same rows, given to each of them in the same order: {name: (N, C)}."""
    outputs = _ask_each(parts, make_step, batch_size=batch_size, accelerator=accelerator)
    return {name: np.mean([each[name].numpy() for each in outputs], axis=0, dtype=float) for name in outputs[0]}


def _ask_each(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> list[Outputs]:
    """{name: (N, C)} of each model and its rows, in the order of `parts`; those of the same rows are asked jointly."""
    same: dict[tuple[str, ...], list[int]] = {}
    for number, (run, rows) in enumerate(parts):
        same.setdefault((run.input_key, *rows["guid"][:]), []).append(number)
    answers: dict[int, Outputs] = {}
    for numbers in same.values():
        run, rows = parts[numbers[0]]
        ask = partial(run_inference, batch_size=batch_size, accelerator=accelerator)
        models = join_models(parts[number][0].load_model() for number in numbers)
        found = [ask(joint, rows, run.collator, step=make_step(run, rows)) for joint in models]
        for place, number in enumerate(numbers):
            answers[number] = {name: torch.cat([each[name] for each in found], dim=1)[:, place] for name in found[0]}
    return [answers[number] for number in range(len(parts))]
