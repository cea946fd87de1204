"""Finding pretrained parts in a folder, in the hub's cache, or on the hub; one clear sentence where that fails."""

from __future__ import annotations

import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor

from data_utils.system.refusals import describe_refusal, refuse_unreadable
from modeling import untrusted
from modeling.errors import InputError
from modeling.state import without_reports

T = TypeVar("T")
REMEDIES = (
    "Pass a folder that holds the model (config.json, weights, tokenizer, preprocessor_config.json); or download it "
    "where there is a network and set HF_HOME to that cache; or train without pretrained weights: --from_scratch."
)
CONNECT_SECONDS = 10.0
TEXTS, MAX_TEXT = (".json", ".txt", ".model", ".jinja", ".py"), 2**28


def load_config(name: str, *, trust_remote_code: bool) -> PreTrainedConfig:
    """The configuration of a folder or hub name. Raises `InputError` if it can't be had."""
    settings, _ = from_hub(PreTrainedConfig.get_config_dict, name, trust_remote_code=trust_remote_code)
    # First of all: some configurations make a list with an entry for each layer.
    untrusted.check_sizes(settings, repr(name))
    config = from_hub(AutoConfig.from_pretrained, name, trust_remote_code=trust_remote_code)
    if not trust_remote_code:
        with wrap_load_errors(name, REMEDIES):
            untrusted.drop_code(config)
    return config


def load_tokenizer(name: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name. Raises `InputError` if it can't be had."""
    tokenizer = from_hub(untrusted.load_tokenizer, name, trust_remote_code=trust_remote_code)
    with wrap_load_errors(name, REMEDIES):
        tokenizer("a short text")  # what its files lack, or have wrong, may come to light no earlier
    return tokenizer


def load_image_processor(name: str, *, trust_remote_code: bool) -> BaseImageProcessor:
    """The image processor of a folder or hub name, in its Pillow version. Raises `InputError` if it can't be had."""
    if not trust_remote_code:
        from_hub(untrusted.check_image_processor, name)
    return from_hub(AutoImageProcessor.from_pretrained, name, trust_remote_code=trust_remote_code, backend="pil")


def load_model(
    name: str, *, trust_remote_code: bool, model_class: type | None = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of a folder or hub name, and which weights it lacks, or has in another size, as transformers tells it.

    Its class is as its configuration says where none of transformers' is given. Raises `InputError` if it can't be had.
    """
    config = load_config(name, trust_remote_code=trust_remote_code)
    options = {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    return from_hub((model_class or AutoModel).from_pretrained, name, trust_remote_code=trust_remote_code, **options)


def from_hub(load: Callable[..., T], name: str, **options: Any) -> T:
    """Call a `from_pretrained` quietly, without the hub's retries where the hub can't be reached.

    Raises:
        InputError: the folder or name doesn't exist, lacks what is asked for, or the hub can't be reached.
    """
    local = _must_be_local(name)
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    with without_reports(), wrap_load_errors(name, REMEDIES):
        return load(name, local_files_only=local, **options)


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


def check_files(folder: Path) -> None:
    """Refuse a model folder with pipes or devices, whose reading would not end, or texts that no memory holds.

    Raises:
        InputError: a file is no plain one, may not be read, or is larger than any tokenizer's, and holds no weights.
    """
    refuse_unreadable(folder)
    for path in sorted(folder.iterdir()):
        status = path.stat() if path.exists() else None
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is no plain file, as a model's folder has them; take it away.")
        if path.suffix in TEXTS and status.st_size > MAX_TEXT:
            raise InputError(f"{path} has {status.st_size:,} bytes; at most {MAX_TEXT:,} are read from such a file.")


def _must_be_local(name: str) -> bool:
    """Whether `name` has to be read from this machine: a folder, or a hub name while the hub is out of reach."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"The folder {name!r} has no config.json, so it is no saved model. {REMEDIES}")
        check_files(folder)
        return True
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"There is no folder {name!r}. {REMEDIES}")
    if constants.is_offline_mode() or not _hub_answers():
        if not isinstance(_cached_config(name), str):
            raise InputError(
                f"{name!r} is neither a folder nor in the hub's cache, and the hub can't be reached. {REMEDIES}"
            )
        return True
    return False


def _cached_config(name: str) -> str | object | None:
    try:
        return try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise InputError(f"{name!r} is neither a folder nor a hub name. {REMEDIES}") from error


@cache
def _hub_answers() -> bool:
    """One request without retries: the library's own would take half a minute and print each try."""
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # an answer, if not a friendly one
    except OSError:
        return False
