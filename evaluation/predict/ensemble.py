"""The models of a run: the one of an ordinary run, or all of a cross-validated one, each judging what it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from numpy.typing import NDArray

from evaluation.arguments import SPLITS
from evaluation.predict.inference import Outputs, Step, run_inference
from evaluation.predict.joint_models import JointModels, join_models
from evaluation.predict.loaded_run import LoadedRun, load_run
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder
from run_files.run_folder import RunFolder

HELD_OUT = "test"
SPLIT_TITLES = {"val": "validation", "train": "training part", "test": "test part", "all": "all parts"}
Part = tuple[LoadedRun, Dataset]
# A run and its rows -> what `JointModels` are asked of a batch: {name: (B, M, C)}.
MakeStep = Callable[[LoadedRun, Dataset], Step]


@dataclass(frozen=True)
class Ensemble:
    """The models of a run.

    Attributes:
        folder: the run's.
        runs: each model's.
        is_cross_validated: whether there are folds, so that each row is judged by the models that held it out.
    """

    folder: RunFolder
    runs: tuple[LoadedRun, ...]
    is_cross_validated: bool

    @property
    def first(self) -> LoadedRun:
        """One of them, for what they have in common."""
        return self.runs[0]

    def choose_split(self, split: str | None) -> str:
        """The part that is judged where none is named: the validation rows, or those that each fold held out.

        Raises:
            InputError: of a cross-validated run another part is asked for, which some of its models were trained on.
        """
        if not self.is_cross_validated:
            return split or SPLITS[0]
        if split not in (None, HELD_OUT):
            raise InputError(
                f"Got --split {split}, but of a cross-validated run only what each fold held out can be judged: leave "
                f"--split out, or name one of the runs in {self.folder.path / 'members'}."
            )
        return HELD_OUT

    def title(self, split: str) -> str:
        """The part's name for people."""
        return "out of fold" if self.is_cross_validated else SPLIT_TITLES[split]

    def load_rows(self, split: str) -> list[Part]:
        """Each model with its rows of a part; the first alone speaks of the data, which are the same for all."""
        return [(run, run.load_split_rows(split, quiet=number > 0)) for number, run in enumerate(self.runs)]


@dataclass(frozen=True)
class EvalResult:
    """What the models said of N rows.

    Attributes:
        guids, labels: of the rows; labels (N,) are class ids.
        outputs: {name: (N, C)}, where several models judged a row the mean of what they said.
    """

    guids: tuple[str, ...]
    labels: NDArray[np.int64]
    outputs: dict[str, NDArray[np.float64]]


def load_ensemble(
    path: str | Path, *, data_dir: str | None = None, cache_dir: str | None = None, trust_remote_code: bool = False
) -> Ensemble:
    """The models of a run folder, without their weights; see `load_run`."""
    options = {"data_dir": data_dir, "cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    folder = FoldsFolder.find(path)
    if folder is None:
        run = load_run(path, **options)
        return Ensemble(run.folder, (run,), is_cross_validated=False)
    folder.check_complete()
    runs = tuple(load_run(member.path, **options) for member in folder.members())
    return Ensemble(folder, runs, is_cross_validated=True)


def evaluate_rows(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> EvalResult:
    """What each model says of its rows, each row once: in the list's order for one model, else sorted by guid."""
    guids = [guid for _, rows in parts for guid in rows["guid"][:]]
    labels = np.concatenate([np.asarray(rows["label"][:], dtype=np.int64) for _, rows in parts])
    outputs = _ask_each(parts, make_step, batch_size=batch_size, accelerator=accelerator)
    stacked = {name: np.concatenate([each[name].numpy() for each in outputs]).astype(float) for name in outputs[0]}
    if len(parts) == 1:
        return EvalResult(tuple(guids), labels, stacked)
    names, first, numbers = np.unique(np.array(guids, dtype=object), return_index=True, return_inverse=True)
    counts = np.bincount(numbers)[:, None]
    means = {}
    for name, values in stacked.items():
        means[name] = np.zeros((len(names), values.shape[1]))
        np.add.at(means[name], numbers, values)
        means[name] /= counts
    return EvalResult(tuple(names), labels[first], means)


def predict_rows(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> dict[str, NDArray[np.float64]]:
    """What the models say on average of the same rows, given to each of them in the same order: {name: (N, C)}."""
    outputs = _ask_each(parts, make_step, batch_size=batch_size, accelerator=accelerator)
    return {name: np.mean([each[name].numpy() for each in outputs], axis=0, dtype=float) for name in outputs[0]}


def _ask_each(
    parts: Sequence[Part], make_step: MakeStep, *, batch_size: int, accelerator: Accelerator
) -> list[Outputs]:
    """{name: (N, C)} of each model and its rows, in the order of `parts`; those of the same rows are asked jointly."""
    same: dict[tuple[str, ...], list[int]] = {}
    for number, (run, rows) in enumerate(parts):
        same.setdefault((run.input_key(), *rows["guid"][:]), []).append(number)
    answers: dict[int, Outputs] = {}
    for numbers in same.values():
        run, rows = parts[numbers[0]]
        models = join_models(parts[number][0].load_model() for number in numbers)
        found = list(map(partial(_ask, run, rows, make_step, batch_size, accelerator), models))
        for place, number in enumerate(numbers):
            answers[number] = {name: torch.cat([each[name] for each in found], dim=1)[:, place] for name in found[0]}
    return [answers[number] for number in range(len(parts))]


def _ask(
    run: LoadedRun,
    rows: Dataset,
    make_step: MakeStep,
    batch_size: int,
    accelerator: Accelerator,
    models: JointModels,
) -> Outputs:
    step = make_step(run, rows)
    return run_inference(models, rows, run.collator, batch_size=batch_size, accelerator=accelerator, step=step)
