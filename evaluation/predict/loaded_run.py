"""A finished run, ready to be used on data: its saved model, its data arguments, its rows."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from data_utils.prepare.columns import MODEL_COLUMNS
from data_utils.prepare.pair_files import pair_folder
from data_utils.prepare.pairs import Pairs, add_row_index, load_pairs
from data_utils.prepare.tokens import tokenize_pairs
from data_utils.shards.shard_set import find_shards
from data_utils.sources.arguments import DataArguments
from data_utils.sources.pictures import PictureSettings
from data_utils.sources.quarantine import Action
from data_utils.splits.groups import find_members
from data_utils.splits.split_file import Split, load_split
from data_utils.stream.part_cache import load_part
from data_utils.stream.rows import RowPreparer
from data_utils.system.schema import check_types
from evaluation.predict.saved_model import SavedModel, load_saved_model
from modeling.choices import FUSIONS
from modeling.errors import InputError
from run_files.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRun(SavedModel):
    """A saved model and the data of its run.

    Attributes:
        data: the data arguments of training, with what the command line of evaluation puts in their place.
        training, environment: the sections of config.yaml.
    """

    data: DataArguments
    training: dict[str, Any]
    environment: dict[str, Any]

    def load_rows(self, list_file: Path, *, pair_dir: Path, for_prediction: bool = False) -> Pairs:
        """The pairs of a list (see `load_pairs`) as in training: cleaned, decoded and tokenised for the model.

        The cleaned text is beside its tokens, for whoever changes it and tokenises it again.
        """
        pairs = load_pairs(
            list_file,
            pair_dir=pair_dir,
            # A prediction answers every row of the list, also where training was told to stop at a bad pair.
            # What was trained on is judged as it is now; large losses are told.
            data=replace(self.data, allow_data_loss=True, **({"on_bad_pair": "mask"} if for_prediction else {})),
            picture=PictureSettings(**self.config.picture),
            text_cleaning=self.config.text_cleaning,
            for_prediction=for_prediction,
            needs=FUSIONS[self.config.fusion],
        )
        dataset, _ = tokenize_pairs(
            pairs.dataset, self.tokenizer, max_length=self.config.max_length, cache_dir=self.data.cache_path()
        )
        return replace(pairs, dataset=dataset.select_columns([*MODEL_COLUMNS, "text"]))

    def training_guids(self) -> tuple[str, ...]:
        """Of the rows that it was trained on; none where they came from a stream, or the run was copied without."""
        if self.data.streaming or not self.folder.split_file.is_file():
            return ()
        return load_split(self.folder.split_file).train

    def training_dir(self) -> str:
        """The data folder of the training, wherever the data lie now."""
        return self.folder.load_arguments()["data"]["data_dir"]

    def list_files(self) -> list[Path]:
        """The lists that it was made of: its rows and, if a file named it, their split."""
        split_file = self.data.split_file
        own = replace(self.data, data_dir=self.training_dir())
        return [self.data.list_path(), own.list_path(), *([] if split_file is None else [Path(split_file)])]

    def is_trained_in(self, pair_dir: Path) -> bool:
        """Whether these are the folder's very files that it was trained on, so that equal guids are equal rows."""
        own = Path(self.training_dir())
        return own.is_dir() and pair_folder(own) == pair_folder(pair_dir)

    def load_split_rows(self, split: str, *, quiet: bool = False) -> Dataset:
        """The rows of a part of the run's split (val, train, test, or all) with row_index, in the list's order.

        Args:
            split: the part.
            quiet: say nothing of data that have changed since the training.

        Raises:
            InputError: the part has no rows, or the data aren't those of the split.
        """
        if self.data.streaming:
            return self._load_streamed_rows(split)
        pairs = self.load_rows(self.data.list_path(), pair_dir=Path(self.data.data_dir))
        parts = load_split(self.folder.split_file, known_guids=pairs.known_guids)
        if not quiet:
            self._warn_of_changes(pairs, parts)
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

    def row_preparer(self, *, for_prediction: bool = False) -> RowPreparer:
        """Rows of shards -> rows for the model, as in training."""
        return RowPreparer(
            tokenizer=self.tokenizer,
            max_length=self.config.max_length,
            picture=PictureSettings(**self.config.picture),
            labels=self.label_names,
            text_cleaning=self.config.text_cleaning,
            on_bad_pair="mask" if for_prediction else self.data.on_bad_pair,
            max_image_pixels=self.data.max_image_pixels,
            for_prediction=for_prediction,
        )

    def _warn_of_changes(self, pairs: Pairs, split: Split) -> None:
        if pairs.fingerprint != self.environment.get("data_fingerprint"):
            logger.warning(
                "The data in %s are not quite those of the training (another hash); the figures are of the data as "
                "they are now.",
                self.data.data_dir,
            )
        guids = pairs.dataset["guid"][:]
        gone = set(split.guids).difference(guids)
        if gone:
            logger.warning(
                "%d rows of the run's split can't be used now and are left out: %s.",
                len(gone),
                _describe_faults(pairs, gone),
            )

    def _load_streamed_rows(self, split: str) -> Dataset:
        shards = find_shards(self.data.data_dir, "validation") if split == "val" else None
        if shards is None:
            raise InputError(
                f"The run {str(self.folder.path)!r} was trained on a stream, of which only validation shards can be "
                f"scored, and there are none for --split {split}; answer others with --predict SHARDS --streaming."
            )
        limit, cache_dir = self.data.max_eval_samples, self.data.cache_path()
        shards = shards.with_text_encoding(self.data.text_encoding)
        return load_part(shards, self.row_preparer(), cache_dir=cache_dir, limit=limit)[0]


def load_run(
    path: str | Path, *, data_dir: str | None = None, cache_dir: str | None = None, trust_remote_code: bool = False
) -> LoadedRun:
    """Read a run folder without its weights.

    Args:
        path: of the folder.
        data_dir, cache_dir: in the place of the run's own.
        trust_remote_code: whether code that its tokenizer brings along is run.

    Raises:
        InputError: it is no finished run, or one of another version of this program.
    """
    folder = RunFolder.open(path)
    sections = folder.load_arguments()
    check_types(sections["data"], DataArguments, f"The data section of {folder.config_file}")
    changes = {"data_dir": data_dir, "cache_dir": cache_dir or _own_cache(folder, sections["data"])}
    section = sections["data"] | {name: value for name, value in changes.items() if name != "data_dir" or value}
    data = DataArguments(**section | {"overwrite_cache": False})
    workers = min(data.num_workers(), os.cpu_count() or 1)  # a number from another machine, or from anywhere
    model = load_saved_model(folder, trust_remote_code=trust_remote_code)
    return LoadedRun(
        **vars(model),
        data=replace(data, preprocessing_num_workers=workers),
        training=sections["training"],
        environment=sections["environment"],
    )


def _own_cache(folder: RunFolder, section: Mapping[str, Any]) -> str | None:
    """The run's folder for prepared data if it is in the run, or where it is by default, which is what None stands for.

    A run doesn't say where else something is written and deleted: it may come from anywhere.
    """
    named = section.get("cache_dir")
    if named is None:
        return None
    own, default = os.path.realpath(Path(named).expanduser()), DataArguments(data_dir=".").cache_path()
    if Path(own).is_relative_to(os.path.realpath(folder.path)):
        return own
    if own != os.path.realpath(default):
        _tell_cache(default, own)
    return None


@cache
def _tell_cache(default: Path, own: str) -> None:
    """Once for all models of a run."""
    logger.info("The data are prepared in %s; to use the training's folder again, add --cache_dir %s.", default, own)


def _describe_faults(pairs: Pairs, guids: Collection[str]) -> str:
    """What is wrong with rows that were left out: counts by reason, and the first."""
    wanted = set(guids)
    entries = [entry for entry in pairs.quarantine if entry.guid in wanted and entry.action == Action.DROPPED]
    counts = Counter(entry.reason for entry in entries)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{why}; first {entries[0].guid!r} in row {entries[0].row} ({entries[0].detail})"
