"""A finished run, ready to be used on data: its saved model, its data arguments, its rows."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import MODEL_COLUMNS
from data_utils.prepare.pair_files import PairSource
from data_utils.prepare.pairs import Pairs, add_row_index, load_pairs
from data_utils.prepare.tokens import tokenize_pairs, tokenizer_key
from data_utils.shards.shard_set import find_shards
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import Action
from data_utils.splits.groups import find_members
from data_utils.splits.split_file import load_split
from data_utils.stream.part_cache import load_part
from data_utils.stream.rows import RowPreparer
from data_utils.system.device_copies import can_pin
from data_utils.system.schema import check_types
from data_utils.tables.opening import open_source
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.pictures import PictureSettings
from modeling.text import tokenize_batch
from run_files.model_folder import check_files, check_model_file, load_tokenizer, wrap_load_errors
from run_files.run_folder import RunFolder

logger = logging.getLogger(__name__)
DAMAGED = "It is incomplete or damaged; copy it again, or train again."


@dataclass(frozen=True)
class LoadedRun:
    """A run without its weights, which `load_model` reads.

    `data` are the arguments of training with what the command line of evaluation puts in their place; training and
    environment are sections of config.yaml.
    """

    folder: RunFolder
    config: SentimentConfig
    tokenizer: PreTrainedTokenizerBase
    picture: PictureSettings
    data: DataArguments
    training: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def label_names(self) -> list[str]:
        """The C classes' names in the order of their ids."""
        return [self.config.id2label[index] for index in range(self.config.num_labels)]

    @property
    def collator(self) -> PairCollator:
        """Rows -> batch of this model's inputs."""
        return PairCollator(self.tokenizer.pad_token_id, self.picture.image_size, pin=can_pin())

    @cached_property
    def input_key(self) -> str:
        """Equal for runs whose models get the same numbers for the same pair."""
        return f"{tokenizer_key(self.tokenizer)} {self.config.max_length} {self.config.text_cleaning} {self.picture}"

    @property
    def data_key(self) -> str:
        """Equal for runs whose rows are prepared alike, with the same remarks, whichever each was trained on."""
        return f"{self.input_key} {self.config.fusion} {replace(self.data, split_file=None)}"

    def load_model(self) -> SentimentClassifier:
        """The weights, in float32 on the CPU, of a model that was tried on the longest text and a picture."""
        with wrap_load_errors(self.folder.model_dir, DAMAGED):
            folder = str(self.folder.model_dir)
            model = SentimentClassifier.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            with torch.inference_mode():
                model(**self.make_inputs(1, self.config.max_length))
        return model

    def make_inputs(self, num_rows: int, length: int) -> dict[str, torch.Tensor]:
        """Inputs of the model that mean nothing: texts of so many tokens, and black pictures."""
        side, present = self.picture.image_size, torch.ones(num_rows, dtype=torch.bool)
        return {
            "input_ids": torch.full((num_rows, length), self.tokenizer("a")["input_ids"][0]),
            "attention_mask": torch.ones(num_rows, length, dtype=torch.long),
            "pixel_values": torch.zeros(num_rows, 3, side, side, dtype=torch.uint8),
            "text_present": present,
            "image_present": present.clone(),
        }

    def load_rows(self, source: PairSource, *, for_prediction: bool = False) -> Pairs:
        """The pairs of a source (see `load_pairs`) as in training: cleaned, decoded and tokenised for the model.

        The cleaned text is beside its tokens, for whoever changes it and tokenises it again; so are the keys of twins.
        """
        # A prediction answers every row of the list, also where training was told to stop at a bad pair.
        # What was trained on is judged as it is now; large losses are told.
        on_bad_pair = "mask" if for_prediction else self.data.on_bad_pair
        cleaning = self.config.text_cleaning
        pairs = load_pairs(
            source,
            data=replace(self.data, allow_data_loss=True, on_bad_pair=on_bad_pair, text_cleaning=cleaning),
            picture=self.picture,
            for_prediction=for_prediction,
            needs=FUSIONS[self.config.fusion],
        )
        dataset, _ = tokenize_pairs(
            pairs.dataset, self.tokenizer, max_length=self.config.max_length, cache_dir=self.data.cache_path()
        )
        return replace(pairs, dataset=dataset.select_columns([*MODEL_COLUMNS, "text", "text_key", "image_key"]))

    def load_own_pairs(self) -> Pairs:
        """`load_rows` of the data that it was made of, wherever they lie now."""
        return self.load_rows(open_source(self.data))

    def training_guids(self) -> tuple[str, ...]:
        """Of the rows that it was trained on; none where they came from a stream, or the run was copied without."""
        has_split = self.folder.split_file.is_file() and not self.data.streaming
        return load_split(self.folder.split_file).train if has_split else ()

    def list_files(self) -> list[Path]:
        """The lists that it was made of: its rows and, if a file named it, their split."""
        split_file = self.data.split_file
        own = replace(self.data, data_dir=self.training_dir())
        if self.data.data is not None:
            return [Path(name) for name in (*self.data.data, *(self.data.val_data or ()), *(self.data.test_data or ()))]
        return [self.data.list_path(), own.list_path(), *([] if split_file is None else [Path(split_file)])]

    def training_dir(self) -> str:
        """The data folder of the training, wherever the data lie now."""
        return self.folder.load_arguments()["data"]["data_dir"]

    def load_split_rows(self, split: str) -> Dataset:
        """The rows of a part of the run's split (val, train, test, or all) with row_index, in the list's order."""
        return self.load_streamed_rows(split) if self.data.streaming else self.select_rows(self.load_own_pairs(), split)

    def select_rows(self, pairs: Pairs, split: str, *, quiet: bool = False) -> Dataset:
        """`load_split_rows` of pairs that are loaded; `quiet` says nothing of data that have changed since training."""
        parts = load_split(self.folder.split_file, known_guids=pairs.known_guids)
        if not quiet:
            self._warn_of_changes(pairs, parts.guids)
        members = parts.guids if split == "all" else getattr(parts, split)
        if not members:
            raise InputError(
                f"The run {str(self.folder.path)!r} has no {split} rows: its split.json names none for that part (as "
                "after --val_ratio 0). Take another --split, or score another labelled list with --predict FILE."
            )
        rows = np.flatnonzero(find_members(members, pairs.dataset["guid"][:]))
        if len(rows) == 0:
            raise InputError(
                f"None of the {len(members)} {split} rows of the run {str(self.folder.path)!r} can be used: "
                f"{_describe_faults(pairs, members)}. Mend the data in {self.data.data_dir}, or pass --data_dir."
            )
        return add_row_index(pairs.dataset.select(rows))

    def load_streamed_rows(self, split: str) -> Dataset:
        """`load_split_rows` of a run that was trained on a stream, of which validation shards alone can be scored."""
        shards = find_shards(self.data.data_dir, "validation") if split == "val" else None
        if shards is None:
            raise InputError(
                f"The run {str(self.folder.path)!r} was trained on a stream, of which only validation shards can be "
                f"scored, and there are none for --split {split}; answer others with --predict SHARDS --streaming."
            )
        limit, cache_dir = self.data.max_eval_samples, self.data.cache_path()
        shards = shards.with_text_encoding(self.data.text_encoding)
        return load_part(shards, self.row_preparer(), cache_dir=cache_dir, limit=limit)[0]

    def row_preparer(self, *, for_prediction: bool = False) -> RowPreparer:
        """Rows of shards -> rows for the model, as in training."""
        return RowPreparer(
            tokenizer=self.tokenizer,
            max_length=self.config.max_length,
            picture=self.picture,
            labels=self.label_names,
            text_cleaning=self.config.text_cleaning,
            on_bad_pair="mask" if for_prediction else self.data.on_bad_pair,
            max_image_pixels=self.data.max_image_pixels,
            for_prediction=for_prediction,
        )

    def _warn_of_changes(self, pairs: Pairs, guids: Collection[str]) -> None:
        if pairs.fingerprint != self.environment.get("data_fingerprint"):
            logger.warning(
                "The data in %s are not quite those of the training (another hash); the figures are of the data as "
                "they are now%s.",
                self.data.data_dir,
                "" if self.data.data is None else ", and rows that are named by their numbers may be others",
            )
        gone = set(guids).difference(pairs.dataset["guid"][:])
        if gone:
            faults = _describe_faults(pairs, gone)
            logger.warning("%d rows of the run's split can't be used now and are left out: %s.", len(gone), faults)


def load_run(
    path: str | Path,
    *,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    trust_remote_code: bool = False,
    **tables: Any,
) -> LoadedRun:
    """Read a run folder without its weights; data_dir, cache_dir and `tables` stand in the place of its own.

    `tables` are those of the flags of the data that `evaluate.py` takes, too; None for what is as in the training.
    """
    folder = RunFolder.open(path)
    sections = folder.load_arguments()
    check_types(sections["data"], DataArguments, f"The data section of {folder.config_file}")
    cache_dir = cache_dir or _own_cache(folder, sections["data"].get("cache_dir"))
    place = {name: value for name, value in {"data_dir": data_dir, **tables}.items() if value}
    if tables.get("data"):  # the folder is theirs, and a list of pairs has its usual name
        place = {"data_dir": None, "train_file": DataArguments.train_file} | place
    flags = DataArguments(**sections["data"] | place | {"cache_dir": cache_dir, "overwrite_cache": False})
    workers = min(flags.num_workers(), os.cpu_count() or 1)  # a number from another machine, or from anywhere
    check_files(folder.model_dir)
    check_model_file(folder.model_dir / "config.json")
    with wrap_load_errors(folder.model_dir, DAMAGED):
        config = SentimentConfig.from_pretrained(folder.model_dir, local_files_only=True, trust_remote_code=False)
        tokenizer = load_tokenizer(folder.model_dir, local_files_only=True, trust_remote_code=trust_remote_code)
        _check_tokenizer(tokenizer, config)
    names = [config.id2label[index] for index in range(config.num_labels)]
    if (config.task, names) != (flags.task, flags.labels):
        raise InputError(f"{folder.config_file} names another task than its model, or other labels. {DAMAGED}")
    return LoadedRun(
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        picture=PictureSettings(**config.picture or {}),
        data=replace(flags, preprocessing_num_workers=workers),
        training=sections["training"],
        environment=sections["environment"],
    )


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: SentimentConfig) -> None:
    """Any exception where the tokenizer can't be used, or isn't the text tower's."""
    tokenize_batch(["a", "a b " * min(config.max_length, 1000)], tokenizer, config.max_length)
    if tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer has no padding token")
    largest = max([*tokenizer.get_vocab().values(), tokenizer.pad_token_id])
    if config.text_tower is not None and largest >= config.text_tower["config"].get("vocab_size", largest + 1):
        raise ValueError(f"its tokenizer has a token {largest}, which its text tower does not know")


def _own_cache(folder: RunFolder, named: str | None) -> str | None:
    """The run's folder for prepared data if it is in the run; else None, which stands for where it is by default.

    A run doesn't say where else something is written and deleted: it may come from anywhere.
    """
    own = os.path.realpath(Path(named or "").expanduser())
    if named and Path(own).is_relative_to(os.path.realpath(folder.path)):
        return own
    if named:
        _tell_cache(own)
    return None


@cache
def _tell_cache(own: str) -> None:
    """Once for all models of a run."""
    default = DataArguments(data_dir=".").cache_path()
    if own != os.path.realpath(default):
        message = "The data are prepared in %s; to use the training's folder again, add --cache_dir %s."
        logger.info(message, default, own)


def _describe_faults(pairs: Pairs, guids: Collection[str]) -> str:
    """What is wrong with rows that were left out: counts by reason, and the first."""
    wanted = set(guids)
    entries = [entry for entry in pairs.quarantine if entry.guid in wanted and entry.action == Action.DROPPED]
    counts = Counter(entry.reason for entry in entries)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{why}; first {entries[0].guid!r} in row {entries[0].row} ({entries[0].detail})"
