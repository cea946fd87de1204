"""Settings of an encoder, looked at before anything is built: a file may have been damaged, or made to do harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from .errors import InputError

# Of what is built one by one, in milliseconds each, even where it gets no memory.
MAX_PARTS = 1000
PARTS = re.compile(r"layers?$|depths?$|blocks?$|stages$|experts$|repeats$")
DROPOUT = re.compile(r"dropout(_prob|_rate|_p)?$|pdrop$|layerdrop$|drop_path_rate$")
# Of names that transformers makes one by one, of a grid's side, and of all else.
MAX_LABELS, MAX_SIDE, MAX_NUMBER = 1_000_000, 8192, 2**40


def check_sizes(settings: Any, source: str) -> None:
    """Refuse sizes that no encoder has, in settings of any depth.

    Args:
        settings: an encoder's, as JSON.
        source: whose they are, for the message.

    Raises:
        InputError: a number of layers, a side of a picture or any other whole number is beyond all measure; or a
            dropout is no share.
    """
    for key, value in _numbers("", settings):
        if DROPOUT.search(key) and not 0 <= value <= 1:  # which some encoders tell in their first training step
            raise InputError(f"{source} has {key} {value}; a dropout is 0 to 1. Choose another one.")
        if isinstance(value, int) and abs(value) > (limit := _limit(key)):
            raise InputError(
                f"{source} has {key} {str(value)[:20]}; encoders have at most {limit:,}. Choose another one."
            )


def _limit(key: str) -> int:
    if PARTS.search(key):
        return MAX_PARTS
    return MAX_LABELS if key == "num_labels" else MAX_SIDE if key == "image_size" else MAX_NUMBER


def _numbers(key: str, value: Any) -> list[tuple[str, float]]:
    """Each number with the key that it stands under; of a list of parts also their sum."""
    found, waiting = [], [(key, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(name), item) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, item) for item in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((key, value))
    return found


def load_tokenizer(source: str | Path, *, local_files_only: bool, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """`AutoTokenizer.from_pretrained` of no other class than a tokenizer's; any exception where that fails."""
    if not trust_remote_code:
        settings, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local_files_only)
        for part in (settings, get_tokenizer_config(source, local_files_only=local_files_only)):
            _check_class("tokenizer_class", part.get("tokenizer_class"), PreTrainedTokenizerBase)
    options = {"local_files_only": local_files_only, "trust_remote_code": trust_remote_code}
    return AutoTokenizer.from_pretrained(source, **options)


def check_image_processor(source: str, *, local_files_only: bool) -> None:
    """`ValueError` where the files would have another class be loaded as image processor; OSError without files."""
    settings, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local_files_only)
    processor, _ = BaseImageProcessor.get_image_processor_dict(source, local_files_only=local_files_only)
    for part in (settings, processor):
        for key in ("image_processor_type", "feature_extractor_type"):
            _check_class(key, part.get(key), BaseImageProcessor)


def _check_class(key: str, name: Any, kind: type) -> None:
    """`ValueError` for a class of transformers that is no `kind`.

    Libraries call `from_pretrained` of whatever class is named, an AutoProcessor, say, which then asks on the terminal
    whether to run foreign code. A name that transformers hasn't does no harm, nor does one whose library is missing.
    """
    # The spellings that libraries try in turn.
    names = {str(name), stem := re.sub("(Fast)+$", "", str(name)), stem.replace("FeatureExtractor", "ImageProcessor")}
    if kind is BaseImageProcessor:
        names = {each for each in names if not each.endswith("FeatureExtractor")}
    for each in names:
        found = getattr(transformers, each, None)
        is_kind = isinstance(found, type) and (issubclass(found, kind) or getattr(found, "is_dummy", False))
        if found is not None and not is_kind:
            raise ValueError(f"its {key} is {name!r}, which is no {kind.__name__} of transformers")


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
