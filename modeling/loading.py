"""Loading what anybody may have written: limits of its sizes, no code, and the words for weights that don't fit.

Sizes that no machine holds, and code, are refused before anything is built.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from .errors import InputError

NUM_NAMED = 5  # keys named of each kind of difference
MAX_PARTS = 10_000  # modules and tensors of one model; that many are built in about a second
BYTES_PER_WEIGHT = 4
# Of each kind of setting the name, and the largest whole number: parts that are built one by one, in milliseconds each,
# even where they get no memory; names that transformers makes one by one; a grid's side; all else.
LARGEST = (
    (re.compile(r"layers?$|depths?$|blocks?$|stages$|experts$|repeats$"), 1000),
    (re.compile("^num_labels$"), 1_000_000),
    (re.compile("^image_size$"), 8192),
    (re.compile(""), 2**40),
)
DROPOUT = re.compile(r"dropout(_prob|_rate|_p)?$|pdrop$|layerdrop$|drop_path_rate$")


@contextmanager
def bounded_build(name: str) -> Iterator[None]:
    """Within, a model of that name is refused while it is built if this machine couldn't hold it.

    On the meta device nothing is allocated before that.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    num_weights = num_parts = 0

    def count(module: nn.Module, name_of_part: str, part: nn.Module | nn.Parameter | None) -> None:
        nonlocal num_weights, num_parts
        num_parts += 1
        num_weights += part.numel() if isinstance(part, nn.Parameter) else 0
        if num_parts > MAX_PARTS:
            raise InputError(f"{name} would have over {MAX_PARTS:,} parts; give it fewer layers.")
        if num_weights * BYTES_PER_WEIGHT > memory:
            raise InputError(
                f"{name} would have at least {num_weights:,} weights, for which the {memory / 2**30:.0f} GiB of memory "
                "of this machine are too few; choose smaller sizes (layers, widths, vocabulary, picture)."
            )

    hooks = register_module_parameter_registration_hook(count), register_module_module_registration_hook(count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_sizes(settings: Any, source: str) -> None:
    """Refuse sizes that no encoder has, in settings of any depth, before anything is built.

    Args:
        settings: an encoder's, as JSON.
        source: whose they are, for the message.
    """
    for key, value in _walk(settings):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if DROPOUT.search(key) and not 0 <= value <= 1:  # which some encoders tell in their first training step
            raise InputError(f"{source} has {key} {value}; a dropout is 0 to 1. Choose another one.")
        largest = next(limit for names, limit in LARGEST if names.search(key))
        if isinstance(value, int) and abs(value) > largest:
            raise InputError(
                f"{source} has {key} {str(value)[:20]}; encoders have at most {largest:,}. Choose another one."
            )


def drop_code(config: PreTrainedConfig) -> None:
    """Forget which code a configuration and its parts bring along, and which compiled kernels they ask for.

    A model is built with the parts' configurations by libraries that ask on the terminal whether to run such code.
    """
    for _, part in _walk(config):
        if isinstance(part, PreTrainedConfig):
            part.__dict__["_attn_implementation_internal"] = None
        elif isinstance(part, dict):
            part.pop("auto_map", None)


def _walk(settings: Any) -> Iterator[tuple[str, Any]]:
    """Settings of any depth and every value in them, with the key that it stands under."""
    waiting = [("", settings)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, PreTrainedConfig):
            waiting.append((key, value.__dict__))
        elif isinstance(value, dict):
            waiting += [(str(name), item) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, item) for item in value]


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
        f"{len(items)} {what}: {'; '.join(sorted(items)[:NUM_NAMED])}"
        + (f"; and {len(items) - NUM_NAMED} more." if len(items) > NUM_NAMED else ".")
        for what, items in (
            ("keys missing in the file", missing),
            ("keys in the file that the model hasn't", unexpected),
            ("keys of another size", sizes),
        )
        if items
    ]
    remedy = "Use the same --model, --fusion and tower settings as the run that wrote it, or start a new run."
    return " ".join([*parts, remedy]) if parts else ""


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
