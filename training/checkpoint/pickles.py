"""Checkpoints hold pickles; which names these would call is looked at before any of them is loaded."""

from __future__ import annotations

from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

from modeling.errors import InputError

SUFFIXES = (".pt", ".pth")  # a .bin is loaded by nobody, or as numbers alone
# Of numpy's random numbers, which Trainer allows, and of what DeepSpeed loads beside its tensors, whatever it is.
KNOWN = frozenset(
    {
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("_core", "core")),
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.dtypes.UInt32DType",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)


def check_pickles(checkpoint: Path) -> None:
    """Refuse a checkpoint with pickles of other things than tensors, plain values and DeepSpeed's own few.

    Raises:
        InputError: a file names other code, or is damaged.
    """
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        try:
            foreign = set(get_unsafe_globals_in_checkpoint(path)) - KNOWN
        except Exception as error:  # of a file that is no archive, or no pickle, anything
            raise InputError(f"{path} is damaged ({type(error).__name__}); use another checkpoint.") from error
        if foreign:
            raise InputError(
                f"{path} would run {min(foreign)}, which no checkpoint of this program does; it is not loaded. Use "
                "another checkpoint."
            )
