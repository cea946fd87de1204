"""Finding pretrained parts in a folder, in the hub's cache, or on the hub; one clear sentence where that fails."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
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

from modeling.errors import InputError
from modeling.loading import check_sizes, drop_code, without_reports
from run_files.model_folder import check_files, check_image_processor, load_tokenizer, wrap_load_errors

T = TypeVar("T")
REMEDIES = (
    "Pass a folder that holds the model (config.json, weights, tokenizer, preprocessor_config.json); or download it "
    "where there is a network and set HF_HOME to that cache; or train without pretrained weights: --from_scratch."
)
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Pretrained:
    """Pretrained parts under the name of a folder or of the hub; what can't be had is an `InputError`."""

    name: str
    trust_remote_code: bool

    def config(self) -> PreTrainedConfig:
        settings, _ = self._load(PreTrainedConfig.get_config_dict)
        check_sizes(settings, repr(self.name))  # first: some configurations make a list with an entry for each layer
        if settings.get("quantization_config"):
            raise InputError(
                f"The weights of {self.name!r} are quantised, and towers are trained, merged and saved in float32: "
                "name the model that they were made from; to spare memory take --lora_rank, --freeze or ZeRO-3."
            )
        config = self._load(AutoConfig.from_pretrained)
        if not self.trust_remote_code:
            with self.wrap_errors():
                drop_code(config)
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self._load(load_tokenizer)
        with self.wrap_errors():
            tokenizer("a short text")  # what its files lack, or have wrong, may come to light no earlier
        return tokenizer

    def image_processor(self) -> BaseImageProcessor:
        """In its Pillow version."""
        self._load(check_image_processor)
        return self._load(AutoImageProcessor.from_pretrained, backend="pil")

    def model(self, model_class: type[PreTrainedModel] | None = None) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Of a class of transformers, by default the configuration's; and transformers' report of what is missing."""
        options = {"config": self.config(), "output_loading_info": True, "ignore_mismatched_sizes": True}
        load = AutoModel.from_pretrained if model_class is None else model_class.from_pretrained
        return self._load(load, **options)

    def wrap_errors(self) -> AbstractContextManager[None]:
        """Whatever is wrong with the files becomes an `InputError`."""
        return wrap_load_errors(self.name, REMEDIES)

    def _load(self, load: Callable[..., T], **options: Any) -> T:
        """Call a `from_pretrained` quietly, without the hub's retries where the hub can't be reached."""
        is_local = _must_be_local(self.name)
        name = str(Path(self.name).expanduser()) if self.name.startswith("~") else self.name
        with without_reports(), self.wrap_errors():
            return load(name, local_files_only=is_local, trust_remote_code=self.trust_remote_code, **options)


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
    if not constants.is_offline_mode() and _hub_answers():
        return False
    try:
        is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # no name that the hub could have
        is_cached = False
    if not is_cached:
        raise InputError(
            f"{name!r} is neither a folder nor in the hub's cache, and the hub can't be reached. {REMEDIES}"
        )
    return True


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
