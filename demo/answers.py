"""Runs whose models stay in memory, and what they say of a few pairs. Legend: N pairs, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.prepare.collator import PairCollator
from data_utils.shards.shard_file import ShardRow
from data_utils.sources.label_forms import encode_labels, name_labels
from data_utils.sources.quarantine import Entry, Reason
from data_utils.stream.rows import NumberedRow, RowPreparer
from demo.arguments import DemoArguments
from evaluation.arguments import EvaluationArguments
from evaluation.predict.ensemble import Ensemble
from evaluation.predict.inference import NOT_FINITE, Step, inference_context
from evaluation.predict.joint_models import join_models
from evaluation.reasons.explaining import explain_pair
from evaluation.scores.abstention import judge_confidence, read_abstention
from evaluation.scores.contributions import COLUMNS, MODALITIES, compute_contributions
from evaluation.scores.metrics import Floats
from evaluation.scores.thresholds import answer_rows
from evaluation.tasks.session import choose_precision, join_ranks, open_ensemble
from evaluation.tasks.split_evaluation import choose_step
from modeling.choices import FUSIONS
from modeling.ensemble import JointModels
from modeling.errors import InputError
from modeling.processor import SentimentProcessor
from run_files.explanations import Reasons

# One thread computes for all visitors: others would each get threads of torch's own, and memory for a picture.
_WORKER = ThreadPoolExecutor(max_workers=1)


class Pair(NamedTuple):
    """What a visitor gives: a text, and the bytes of a picture's file."""

    text: str | None
    picture: bytes | None


@dataclass(frozen=True)
class Answers:
    """What a run says of N pairs.

    Attributes:
        names: of the answers.
        probabilities: (N, C); of a regression its numbers, (N, 1).
        columns: (N,) each: confidence and answered where abstention was learned, and the contributions of single_label.
        faults: of each pair what could not be used of it.
        pictures: of each pair the pixels that the model got, (3, H, H) uint8.
    """

    names: list[str]
    probabilities: Floats
    columns: dict[str, NDArray[Any]]
    faults: list[list[Entry]]
    pictures: list[NDArray[np.uint8] | None]


@dataclass(frozen=True)
class _Group:
    """Models that get the same numbers for the same pair."""

    prepare: RowPreparer
    processor: SentimentProcessor
    collator: PairCollator
    models: list[tuple[JointModels, Step[JointModels]]]


class ServedRun:
    """A run whose models are in memory."""

    def __init__(
        self, name: str, ensemble: Ensemble, arguments: EvaluationArguments, accelerator: Accelerator, max_pixels: int
    ) -> None:
        self.name, self.ensemble, self._accelerator = name, ensemble, accelerator
        self.abstention = read_abstention(ensemble.folder)
        make_step, found = choose_step(ensemble.first, arguments), dict[str, _Group]()
        for key in dict.fromkeys(run.input_key for run in ensemble.runs):
            runs = [run for run in ensemble.runs if run.input_key == key]
            prepare = replace(runs[0].row_preparer(for_prediction=True), max_image_pixels=max_pixels)
            joint = join_models(run.load_model() for run in runs)
            models = [(each, make_step(runs[0], Dataset.from_dict({}))) for each in joint]
            processor = SentimentProcessor.from_config(runs[0].config, runs[0].tokenizer, max_pixels)
            found[key] = _Group(prepare, processor, runs[0].collator, models)
        self._groups = list(found.values())
        self.ask([Pair("a", None)])  # so that no visitor waits for what the first of all takes

    @property
    def task(self) -> str:
        """Of the run."""
        return self.ensemble.first.config.task

    @property
    def label_names(self) -> list[str]:
        """The C classes' names in the order of their ids."""
        return self.ensemble.first.label_names

    @property
    def reads(self) -> list[str]:
        """Of text and picture what the head reads."""
        return [MODALITIES[side] for side in FUSIONS[self.ensemble.first.config.fusion]]

    def ask(self, pairs: Sequence[Pair]) -> Answers:
        """The models' mean, as evaluate.py --predict gives it; nothing is written for it."""
        return _WORKER.submit(self._ask, pairs).result()

    def explain(self, pair: Pair) -> Reasons:
        """What moved the answer; where models get other numbers for a pair, by those alone that get the first one's."""
        group = self._groups[0]
        return _WORKER.submit(explain_pair, [models for models, _ in group.models], group.processor, *pair).result()

    def _ask(self, pairs: Sequence[Pair]) -> Answers:
        rows = [NumberedRow(number, "", ShardRow("", *pair, None)) for number, pair in enumerate(pairs)]
        outputs, first = [], self.ensemble.first
        for group in self._groups:
            prepared, entries = group.prepare(rows)
            batch = send_to_device(group.collator(prepared), self._accelerator.device)
            for models, step in group.models:
                with inference_context(models, self._accelerator):
                    outputs.append({name: value.float().cpu() for name, value in step(models, batch).items()})
        means = {name: torch.cat([each[name] for each in outputs], dim=1).double().mean(dim=1) for name in outputs[0]}
        if not all(value.isfinite().all() for value in means.values()):
            raise InputError(f"The model's output is not finite; {NOT_FINITE}")
        values = {name: value.numpy() for name, value in means.items()}
        labels = encode_labels([None] * len(pairs), self.label_names, self.task)
        names = name_labels(answer_rows(values["full"], labels, self.ensemble.thresholds()), self.label_names)
        columns = {} if self.abstention is None else judge_confidence(values["full"], self.abstention)
        if "none" in values:
            contributions = compute_contributions(values)
            columns |= {name: contributions[name] for name in COLUMNS}
        told = [entry for entry in entries if entry.reason.rpartition("_")[2] in FUSIONS[first.config.fusion]]
        faults = [[entry for entry in told if entry.row == number] for number in range(1, len(pairs) + 1)]
        side = first.picture.image_size
        pixels = [None if row["image"] is None else np.frombuffer(row["image"], np.uint8) for row in prepared]
        pictures = [None if each is None else each.reshape(3, side, side) for each in pixels]
        return Answers(list(names), values["full"], columns, faults, pictures)

    def to_dict(self, answers: Answers, number: int) -> dict[str, Any]:
        """One answer, ready for JSON."""
        values = answers.probabilities[number].tolist()
        said: dict[str, Any] = {"run": self.name, "answer": answers.names[number]}
        if self.task != "regression":
            said["probabilities"] = dict(zip(self.label_names, values, strict=True))
        return said | {name: column[number].item() for name, column in answers.columns.items()}


def describe_fault(fault: Entry) -> str:
    """What was wrong with a text or picture, in place of which there is the vector learned for a missing one."""
    return f"{fault.reason.replace('_', ' ')} ({fault.detail.removeprefix(': ')})"


def refuse_unreadable(faults: Sequence[Entry]) -> None:
    """`InputError` for a picture that can't be decoded, where a visitor gave one pair alone."""
    for fault in faults:
        if fault.reason == Reason.UNREADABLE_IMAGE:
            raise InputError(f"Got an {describe_fault(fault)}. Give a JPEG, PNG, WebP, GIF, BMP or TIFF.")


def serve_runs(arguments: DemoArguments) -> list[ServedRun]:
    """All runs; `InputError` where one can't be used, or where they were trained in several precisions."""
    asked = [
        EvaluationArguments(
            run=run,
            data_dir=arguments.data_dir,
            mixed_precision=arguments.mixed_precision,
            trust_remote_code=arguments.trust_remote_code,
        )
        for run in arguments.runs
    ]
    ensembles = [open_ensemble(each) for each in asked]
    precisions = {choose_precision(ensemble.first, each) for ensemble, each in zip(ensembles, asked, strict=True)}
    if len(precisions) > 1:
        raise InputError(
            f"The runs were trained in {' and '.join(sorted(precisions))}; name one for all: --mixed_precision no."
        )
    accelerator, served = join_ranks(precisions.pop()), []
    short = [Path(run).resolve().name for run in arguments.runs]
    names = short if len(set(short)) == len(short) else arguments.runs
    for name, ensemble, each in zip(names, ensembles, asked, strict=True):
        contributes = replace(each, contributions=ensemble.first.config.task == "single_label")
        served.append(ServedRun(name, ensemble, contributes, accelerator, arguments.max_image_pixels))
    return served
