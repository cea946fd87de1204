"""A folder with a model in it, a run's or a named encoder's: checked before, and while, anything of it is loaded."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from data_utils.system.refusals import describe_refusal, refuse_unreadable
from data_utils.system.schema import COPY_AGAIN, read_json
from modeling.choices import FUSIONS
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.loading import check_sizes
from run_files.schema import ModelFile

# AutoTokenizer reads config.json too, and would take the folder's code for a model type that it doesn't know.
AutoConfig.register(SentimentConfig.model_type, SentimentConfig)
TEXTS, MAX_TEXT = (".json", ".txt", ".model", ".jinja", ".py"), 2**28
TOWERS = {"text": "text_tower", "image": "vision_tower"}


def check_files(folder: Path) -> None:
    """`InputError` for a model folder with pipes or devices, whose reading would not end, or texts of no end."""
    refuse_unreadable(folder)
    for path in sorted(folder.iterdir()):
        status = path.stat() if path.exists() else None
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is no plain file, as a model's folder has them; take it away.")
        if path.suffix in TEXTS and status.st_size > MAX_TEXT:
            raise InputError(f"{path} has {status.st_size:,} bytes; at most {MAX_TEXT:,} are read from such a file.")


def check_model_file(path: Path) -> None:
    """`InputError` unless a config.json describes a model of ours, with all that its head uses."""
    content = read_json(path, ModelFile)
    check_sizes(content, str(path))
    fault = _find_fault(content)
    if fault:
        raise InputError(f"{path} has {fault}; {COPY_AGAIN}.")


def _find_fault(content: dict[str, Any]) -> str | None:
    labels = content.get("id2label", {})
    if set(labels) != set(map(str, range(len(labels)))):
        return "id2label whose keys are not the numbers from 0 on"
    is_number = content.get("problem_type") == "regression"
    if len(set(labels.values())) < len(labels) or (len(labels) < 2) != is_number:
        return "id2label that doesn't name two classes or more, each once, or the one of a regression"
    if len(content.get("thresholds") or labels) != len(labels):
        return "thresholds that aren't one for each class"
    fusion = content.get("fusion", SentimentConfig.fusion)
    if fusion not in FUSIONS:
        return f"the fusion {fusion!r}, where one of {', '.join(FUSIONS)} belongs"
    for kind in FUSIONS[fusion]:
        if content.get(TOWERS[kind]) is None:
            return f"no {TOWERS[kind]}, which the fusion {fusion} uses"
    return None if "picture" in content else "no picture"


def load_tokenizer(source: str | Path, *, local_files_only: bool, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """`AutoTokenizer.from_pretrained` of no other class than a tokenizer's; any exception where that fails."""
    if not trust_remote_code:
        settings, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local_files_only)
        for part in (settings, get_tokenizer_config(source, local_files_only=local_files_only)):
            _check_class("tokenizer_class", part.get("tokenizer_class"), PreTrainedTokenizerBase)
    options = {"local_files_only": local_files_only, "trust_remote_code": trust_remote_code}
    return AutoTokenizer.from_pretrained(source, **options)


def check_image_processor(source: str, *, local_files_only: bool, trust_remote_code: bool) -> None:
    """`ValueError` where the files would have another class be loaded as image processor; OSError without files."""
    if trust_remote_code:
        return
    settings, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local_files_only)
    processor, _ = BaseImageProcessor.get_image_processor_dict(source, local_files_only=local_files_only)
    for part in (settings, processor):
        for key in ("image_processor_type", "feature_extractor_type"):
            _check_class(key, part.get(key), BaseImageProcessor)


def _check_class(key: str, name: Any, kind: type) -> None:
    """`ValueError` for a class of transformers that is no `kind`; names of others do no harm.

    Libraries call `from_pretrained` of whatever class is named, an AutoProcessor, say, which then asks on the terminal
    whether to run foreign code.
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


@contextmanager
def wrap_load_errors(name: str | Path, remedy: str) -> Iterator[None]:
    """Around a `from_pretrained`: whatever is wrong with the files of `name` becomes an `InputError` with the remedy.

    Their parsers raise any class: tokenizers has none but Exception, and a wrong type may come to light anywhere.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":  # a panic of Rust's code
            raise
        if "trust_remote_code=True" in str(error):
            raise InputError(
                f"{str(name)!r} brings program code of its own (auto_map in its .json files), which is not run. Take "
                "another source, or read that code and, if you trust it, add --trust_remote_code."
            ) from error
        if (sentence := describe_refusal(error)) is not None:  # the files may be in order
            raise InputError(sentence) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"Can't load {str(name)!r}: {reason}. {remedy}") from error
