"""Comparing the tensors that a file holds with those that a model needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import logging as transformers_logging

from .errors import InputError

NUM_NAMED = 5  # keys named of each kind of difference


def describe_differences(
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Sequence[int], Sequence[int]]],
) -> str:
    """One text that names missing, unexpected and wrongly sized keys, and what to do; empty where there are none.

    Args:
        mismatched: (key, size in the file, size in the model).
    """
    sizes = [f"{key} is {tuple(found)} in the file, {tuple(wanted)} in the model" for key, found, wanted in mismatched]
    parts = [
        f"{len(items)} {what}: {_some(items)}."
        for what, items in (
            ("keys missing in the file", sorted(missing)),
            ("keys in the file that the model hasn't", sorted(unexpected)),
            ("keys of another size", sorted(sizes)),
        )
        if items
    ]
    if not parts:
        return ""
    remedy = "Use the same --model, --fusion and tower settings as the run that wrote it, or start a new run."
    return " ".join([*parts, remedy])


def check_weights_fit(model: nn.Module, file: Path) -> None:
    """Compare a safetensors file's keys and sizes with the model's, reading its header only.

    Raises:
        InputError: they differ, or the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            found = {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}); use an earlier checkpoint.") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    mismatched = [(key, found[key], wanted[key]) for key in wanted.keys() & found.keys() if found[key] != wanted[key]]
    differences = describe_differences(wanted.keys() - found.keys(), found.keys() - wanted.keys(), mismatched)
    if differences:
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


def _some(items: Iterable[str]) -> str:
    items = list(items)
    more = len(items) - NUM_NAMED
    return "; ".join(items[:NUM_NAMED]) + (f"; and {more} more" if more > 0 else "")


@contextmanager
def without_reports() -> Iterator[None]:
    """Without transformers' tables of missing and unused weights, which we check ourselves, and without its bars."""
    verbosity, shows_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()
