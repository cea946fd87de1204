"""Refusing models that no memory could hold, while they are built and before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from .errors import InputError

MAX_PARTS = 10_000  # modules and tensors of one model; that many are built in about a second
BYTES_PER_WEIGHT = 4


@dataclass
class _Tally:
    """What the model that is being built has so far."""

    name: str
    num_weights: int = 0
    num_parts: int = 0

    def add(self, num_weights: int) -> None:
        self.num_weights += num_weights
        self.num_parts += 1
        if self.num_parts > MAX_PARTS:
            raise InputError(f"{self.name} would have over {MAX_PARTS:,} parts; give it fewer layers.")
        if self.num_weights * BYTES_PER_WEIGHT > _memory():
            raise InputError(
                f"{self.name} would have at least {self.num_weights:,} weights, for which the {_memory() / 2**30:.0f} "
                "GiB of memory of this machine are too few; choose smaller sizes (layers, widths, vocabulary, picture)."
            )


_tallies: list[_Tally] = []  # of the models that are being built, a part of one being the last


@contextmanager
def bounded_build(name: str) -> Iterator[None]:
    """Within, a module that would not fit into this machine's memory is refused while it is built.

    On the meta device nothing is allocated before that.

    Args:
        name: of what is built, for the message.

    Raises:
        InputError: the weights in float32 exceed the memory, or there are too many modules.
    """
    hooks = () if _tallies else (_count_parameters(), _count_modules())
    _tallies.append(_Tally(name))
    try:
        yield
    finally:
        _tallies.pop()
        for hook in hooks:
            hook.remove()


def _count_parameters() -> Any:
    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        _tallies[-1].add(0 if parameter is None else parameter.numel())

    return register_module_parameter_registration_hook(count)


def _count_modules() -> Any:
    return register_module_module_registration_hook(lambda module, name, submodule: _tallies[-1].add(0))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
