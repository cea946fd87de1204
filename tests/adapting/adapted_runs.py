"""Trainings of tiny pretrained encoders with adapters or averaged weights, and what is to be compared of them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from evaluation.predict.loaded_run import load_run
from training.checkpoint.checkpoints import list_checkpoints, step_of

RHYTHM = ["--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3", "--save_strategy", "steps"]
RHYTHM += ["--save_steps", "3", "--per_device_train_batch_size", "4"]


def encoder_flags(folder: Path) -> list[str]:
    """Flags of a model over the encoders that `tiny.save_encoders` wrote into a folder."""
    return ["--model", "vilbert", "--text_name", str(folder / "text"), "--vision_name", str(folder / "vision")]


def last_logits(run: Path) -> NDArray[np.float64]:
    """Of the validation rows, less their mean over the classes, as the training's own model gave them in the end."""
    with (run / "predictions_val.csv").open() as file:
        rows = [[float(value) for name, value in row.items() if "prob_" in name] for row in csv.DictReader(file)]
    return np.log(rows) - np.log(rows).mean(axis=1, keepdims=True)


def merged_logits(run: Path) -> NDArray[np.float64]:
    """The same of the saved model."""
    loaded = load_run(run)
    rows = loaded.load_split_rows("val")
    batch = loaded.collator([rows[row] for row in range(len(rows))])
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "row_index")}
    with torch.no_grad():
        logits = loaded.load_model().eval()(**inputs).logits.double().log_softmax(-1).numpy()
    return logits - logits.mean(axis=1, keepdims=True)


def go_back(run: Path, copy: Path, *, to: int) -> Path:
    """A copy of a run in which no checkpoint is left of an update after `to`."""
    shutil.copytree(run, copy)
    for checkpoint in list_checkpoints(copy / "checkpoints"):
        if step_of(checkpoint) > to:
            shutil.rmtree(checkpoint)
    return copy


def find_faults(checkpoint: Path, reference: Path) -> list[str]:
    """Names of what differs by a bit between two checkpoints' weights, trained and averaged."""
    faults = []
    for file in reference.glob("*.safetensors"):
        expected, found = load_file(file), load_file(checkpoint / file.name)
        faults += [f"{file.name} {name}" for name in expected if not torch.equal(expected[name], found[name])]
    return faults
