"""Whether the tensors of a checkpoint are those of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from modeling.errors import InputError
from modeling.loading import describe_differences


def compare_sizes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """One text about the keys and sizes in which what a file holds differs from what a model needs; empty if none."""
    sizes = {key: (tuple(found[key].shape), tuple(wanted[key].shape)) for key in wanted.keys() & found.keys()}
    mismatched = [(key, *pair) for key, pair in sizes.items() if pair[0] != pair[1]]
    return describe_differences(wanted.keys() - found.keys(), found.keys() - wanted.keys(), mismatched)


def check_weights_fit(model: nn.Module, file: Path) -> None:
    """Compare a safetensors file's keys and sizes with the model's, reading its header only.

    Raises:
        InputError: they differ, or the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}); use an earlier checkpoint.") from error
    found = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    if differences := compare_sizes(found, model.state_dict()):
        raise InputError(f"{file} doesn't fit this model. {differences}")


def check_frozen_weights(model: nn.Module, file: Path) -> None:
    """Compare the values of what is frozen in the model with those in a safetensors file that fits it.

    A checkpoint of half precision may have rounded them.

    Raises:
        InputError: they are another encoder's.
    """
    with safe_open(file, framework="pt") as weights:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue
            if not torch.allclose(weights.get_tensor(name).float(), parameter.detach().cpu(), rtol=1e-2, atol=1e-6):
                raise InputError(
                    f"The frozen {name} is not that of {file}: the tower comes from other weights now. Give the names "
                    "(or folders, or --seed) of the run that wrote it, or start a new run."
                )
