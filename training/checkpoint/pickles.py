"""Checkpoints hold pickles; which names these would call is looked at before any of them is loaded."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from modeling.errors import InputError

SUFFIXES = (".pt", ".pth")  # a .bin is loaded by nobody, or as numbers alone
# What DeepSpeed writes beside its tensors, and loads whatever it is.
OF_DEEPSPEED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
# Of numpy's random numbers, which Trainer allows.
OF_NUMPY = ("ndarray", "dtype", "dtypes.UInt32DType", "_core.multiarray._reconstruct", "core.multiarray._reconstruct")
KNOWN = {*OF_DEEPSPEED, *(f"numpy.{name}" for name in OF_NUMPY)}


def check_pickles(checkpoint: Path) -> None:
    """`InputError` for damaged pickles, and for those of more than tensors, plain values and DeepSpeed's own few."""
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        try:
            foreign = set(get_unsafe_globals_in_checkpoint(path)) - KNOWN
        except Exception as error:  # of a file that is no archive, or no pickle, anything
            raise InputError(f"{path} is damaged ({type(error).__name__}); use another checkpoint.") from error
        if foreign:
            raise InputError(f"{path} would run {min(foreign)}, which no checkpoint needs; use another checkpoint.")


def load_pickle(file: Path) -> Any:
    """What DeepSpeed has saved, on the CPU; anything but tensors, plain values and its own few is an error."""
    paths = (name.rpartition(".") for name in OF_DEEPSPEED)
    with safe_globals([getattr(import_module(module), name) for module, _, name in paths]):
        return torch.load(file, map_location="cpu", weights_only=True)
