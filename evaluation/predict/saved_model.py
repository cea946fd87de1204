"""The model of a finished run: its settings and its tokenizer, checked before anything is built by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.tokens import tokenize_batch, tokenizer_key
from data_utils.system.device_copies import can_pin
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from run_files.model_folder import check_files, check_model_file, load_tokenizer, wrap_load_errors
from run_files.run_folder import RunFolder

T = TypeVar("T")
DAMAGED = "It is incomplete or damaged; copy it again, or train again."


@dataclass(frozen=True)
class SavedModel:
    """A run's model without its weights, which `load_model` reads.

    Attributes:
        folder: where the run lies.
        config: of the model.
        tokenizer: of the model.
    """

    folder: RunFolder
    config: SentimentConfig
    tokenizer: PreTrainedTokenizerBase

    @property
    def label_names(self) -> list[str]:
        """The C classes' names in the order of their ids."""
        return [self.config.id2label[index] for index in range(self.config.num_labels)]

    @property
    def collator(self) -> PairCollator:
        """Rows -> batch of this model's inputs."""
        return PairCollator(self.tokenizer.pad_token_id, self.config.picture["image_size"], pin=can_pin())

    def input_key(self) -> str:
        """Equal for runs whose models get the same numbers for the same pair."""
        picture = sorted(self.config.picture.items())
        return f"{tokenizer_key(self.tokenizer)} {self.config.max_length} {self.config.text_cleaning} {picture}"

    def load_model(self) -> SentimentClassifier:
        """The weights, in float32 on the CPU, of a model that was tried on the longest text and a picture.

        Raises:
            InputError: the weights are incomplete or damaged, or the settings don't go together.
        """
        model = _load(SentimentClassifier.from_pretrained, self.folder.model_dir)
        length, side = self.config.max_length, self.config.picture["image_size"]
        with wrap_load_errors(self.folder.model_dir, DAMAGED), torch.inference_mode():
            token = self.tokenizer("a")["input_ids"][0]
            model(
                input_ids=torch.full((1, length), token),
                attention_mask=torch.ones(1, length, dtype=torch.long),
                pixel_values=torch.zeros(1, 3, side, side, dtype=torch.uint8),
                text_present=torch.ones(1, dtype=torch.bool),
                image_present=torch.ones(1, dtype=torch.bool),
            )
        return model


def load_saved_model(folder: RunFolder, *, trust_remote_code: bool) -> SavedModel:
    """The model of a run; `InputError` for what is missing, damaged or not to be trusted in its folder."""
    check_files(folder.model_dir)
    check_model_file(folder.model_dir / "config.json")
    config = _load(SentimentConfig.from_pretrained, folder.model_dir)
    tokenizer = _load(load_tokenizer, folder.model_dir, trust_remote_code=trust_remote_code)
    with wrap_load_errors(folder.model_dir, DAMAGED):
        _check_tokenizer(tokenizer, config)
    return SavedModel(folder, config, tokenizer)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: SentimentConfig) -> None:
    """Any exception where the tokenizer can't be used, or isn't the text tower's."""
    tokenize_batch(["a", "a b " * min(config.max_length, 1000)], tokenizer, config.max_length)
    if tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer has no padding token")
    largest = max([*tokenizer.get_vocab().values(), tokenizer.pad_token_id])
    if config.text_tower is not None and largest >= config.text_tower["config"].get("vocab_size", largest + 1):
        raise ValueError(f"its tokenizer has a token {largest}, which its text tower does not know")


def _load(load: Callable[..., T], folder: Path, *, trust_remote_code: bool = False) -> T:
    """A `from_pretrained` on the run's model folder; `InputError` for what is missing or damaged in it."""
    with wrap_load_errors(folder, DAMAGED):
        return load(folder, local_files_only=True, trust_remote_code=trust_remote_code)
