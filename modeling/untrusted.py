"""Settings of an encoder, looked at before anything is built: a file may have been damaged, or made to do harm."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedConfig

from data_utils.errors import InputError

# Of what is built one by one, in milliseconds each, even where it gets no memory.
MAX_PARTS = 1000
PARTS = re.compile(r"layers?$|depths?$|blocks?$|stages$|experts$|repeats$")
# Of names that transformers makes one by one, of a grid's side, and of all else.
MAX_LABELS, MAX_SIDE, MAX_NUMBER = 1_000_000, 8192, 2**40


def check_sizes(settings: Any, source: str) -> None:
    """Refuse sizes that no encoder has, in settings of any depth.

    Args:
        settings: an encoder's, as JSON.
        source: whose they are, for the message.

    Raises:
        InputError: a number of layers, a side of a picture or any other whole number is beyond all measure.
    """
    for key, value in _numbers("", settings):
        if abs(value) > (limit := _limit(key)):
            raise InputError(
                f"{source} has {key} {str(value)[:20]}; encoders have at most {limit:,}. Choose another one."
            )


def _limit(key: str) -> int:
    if PARTS.search(key):
        return MAX_PARTS
    return MAX_LABELS if key == "num_labels" else MAX_SIDE if key == "image_size" else MAX_NUMBER


def _numbers(key: str, value: Any) -> list[tuple[str, int]]:
    """Each whole number with the key that it stands under; of a list of parts also their sum."""
    found, waiting = [], [(key, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(name), item) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, item) for item in value]
        elif isinstance(value, int) and not isinstance(value, bool):
            found.append((key, value))
    return found


def drop_code(config: PreTrainedConfig) -> None:
    """Forget which code a configuration and its parts bring along, and which compiled kernels they ask for.

    A model is built with the parts' configurations by libraries that ask on the terminal whether to run such code.
    """
    parts: list[Any] = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, PreTrainedConfig):
            part = part.__dict__
            part["_attn_implementation_internal"] = None
        if isinstance(part, dict):
            part.pop("auto_map", None)
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
