"""From files to the two parts that the trainer sees."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.cache import was_built_after
from data_utils.prepare.columns import MODEL_COLUMNS, WEIGHT
from data_utils.prepare.pairs import add_row_index, load_pairs
from data_utils.prepare.tokens import tokenize_pairs, tokenizer_key, train_wordpiece
from data_utils.sources.arguments import DataArguments
from data_utils.sources.label_forms import name_labels, split_label
from data_utils.sources.quarantine import Quarantine
from data_utils.splits.groups import find_groups
from data_utils.splits.split_file import Split, save_split
from data_utils.splits.splits import split_pairs
from data_utils.tables.opening import open_source
from modeling.errors import InputError
from run_files.run_folder import RunFolder
from training.build.plan import ModelPlan
from training.flags.model import ModelArguments

logger = logging.getLogger(__name__)
STARTED = time.time()  # this module is loaded before any data are prepared


@dataclass(frozen=True)
class TrainingData:
    """Tokenised parts and what they came from.

    Attributes:
        rows: every pair, tokenised, with the columns of the collator.
        groups: of each row the number of its group, see `find_groups`.
        train_rows, val_rows, test_rows: numbers of the rows of the parts; the test part chooses nothing.
        max_length: tokens a text is cut to.
        fingerprint: hash of everything that shaped the rows.
        text_encoding: that was taken for texts whose own isn't certain; None where there are none.
    """

    rows: Dataset
    groups: np.ndarray
    train_rows: np.ndarray
    val_rows: np.ndarray
    test_rows: np.ndarray
    tokenizer: PreTrainedTokenizerBase
    split: Split
    quarantine: Quarantine
    max_length: int
    fingerprint: str
    seed: int
    text_encoding: str | None

    @cached_property
    def train(self) -> Dataset:
        """The training part; its row_index counts from 0, as that of each part."""
        return self._select(self.train_rows)

    @cached_property
    def val(self) -> Dataset | None:
        """None with --val_ratio 0."""
        return self._select(self.val_rows) if len(self.val_rows) else None

    @cached_property
    def test(self) -> Dataset | None:
        """None where the split has no test part."""
        return self._select(self.test_rows) if len(self.test_rows) else None

    def _select(self, rows: np.ndarray) -> Dataset:
        return add_row_index(self.rows.select(rows))

    @property
    def used_rows(self) -> np.ndarray:
        """Numbers of the rows of all parts."""
        return np.concatenate([self.train_rows, self.val_rows, self.test_rows])

    @property
    def num_train_rows(self) -> int:
        """Rows of an epoch."""
        return len(self.train_rows)

    def count_labels(self, labels: Sequence[str]) -> dict[str, int] | None:
        """Training rows of each label; None where labels are numbers."""
        values = np.asarray(self.train["label"][:])
        if values.dtype.kind == "f" and values.ndim == 1:
            return None
        counts = (
            np.nansum(values, axis=0) if values.ndim == 2 else np.bincount(values[values >= 0], minlength=len(labels))
        )
        return dict(zip(labels, counts.astype(int).tolist(), strict=True))

    def save(self, run: RunFolder) -> None:
        """Write split.json, quarantine.csv and encodings.csv."""
        save_split(self.split, run.split_file)
        self.quarantine.save(run.quarantine_file)

    def describe_cache(self) -> str:
        """Which prepared data are used, and whether this launch had to build them, for --dry_run."""
        folders = sorted({Path(file["filename"]).parent for file in self.train.cache_files})
        size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        built = [folder.name for folder in folders if was_built_after(folder, STARTED)]
        state = f"{', '.join(built)} built just now" if built else "all found"
        where = os.path.commonpath(folders) if folders else "memory"
        return f"{state}, {size / 1e6:.1f} MB in {where}"

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the rows, of their split and of their tokens: equal for runs that see the same numbers."""
        tokens = hashlib.sha256(f"{tokenizer_key(self.tokenizer)} {self.max_length}".encode()).hexdigest()
        parts = [part["guid"][:] for part in (self.train, self.val, self.test) if part is not None]
        return {
            "data_fingerprint": self.fingerprint,
            "split_sha256": self.split.sha256,
            "rows_sha256": hashlib.sha256(repr((self.seed, parts)).encode()).hexdigest(),
            "tokens_sha256": tokens,
        }


def prepare_data(data: DataArguments, plan: ModelPlan, model: ModelArguments, *, seed: int) -> TrainingData:
    """Read, decode, split and tokenise, or find it in the cache; `InputError` for data that can't be used."""
    start = time.perf_counter()
    pairs = load_pairs(open_source(data), data=data, picture=plan.picture, needs=plan.reads)
    dataset = pairs.dataset
    split, train_rows, val_rows, test_rows = split_pairs(pairs, data, seed=seed)
    if len(train_rows) == 0:
        raise InputError(f"The training part of {data.data_dir} is empty; lower --val_ratio or add pairs.")
    tokenizer = plan.tokenizer
    if tokenizer is None:
        texts = dataset.select_columns("text").select(train_rows)["text"]
        tokenizer = train_tokenizer(texts, plan, model)
    dataset, num_cut = tokenize_pairs(
        dataset, tokenizer, max_length=plan.max_length, cache_dir=data.cache_path(), overwrite=data.overwrite_cache
    )
    logger.info(
        "%d pairs for training, %d for validation%s (split by group), prepared in %.1f s.",
        *(len(train_rows), len(val_rows), f", {len(test_rows)} held out" if len(test_rows) else ""),
        time.perf_counter() - start,
    )
    if num_cut:
        logger.info("%d texts are longer than %d tokens and were cut.", num_cut, plan.max_length)
    weight = [WEIGHT] if WEIGHT in dataset.column_names else []
    dataset = dataset.select_columns([*MODEL_COLUMNS, *weight, "text_key", "image_key"])
    train_rows = _limit(train_rows, data.max_train_samples, seed=seed)
    val_rows = _limit(val_rows, data.max_eval_samples, seed=seed)
    if data.task != "regression":
        texts = set(name_labels(dataset.select_columns("label").select(train_rows)["label"][:], data.labels))
        present = {name for text in texts for name in split_label(text, data.labels, data.task)}
        note_absent_classes(present, data.labels)
    return TrainingData(
        rows=dataset,
        groups=find_groups(pairs.dataset, data.group_by),
        train_rows=train_rows,
        val_rows=val_rows,
        test_rows=test_rows,
        tokenizer=tokenizer,
        split=split,
        quarantine=pairs.quarantine,
        max_length=plan.max_length,
        fingerprint=pairs.fingerprint,
        seed=seed,
        text_encoding=pairs.text_encoding,
    )


def train_tokenizer(texts: Iterable[str], plan: ModelPlan, model: ModelArguments) -> PreTrainedTokenizerBase:
    """The tokenizer of a text tower from scratch; `InputError` where no word is in the texts that the head reads."""
    needs_words, lowercase = "text" in plan.reads, model.lowercase
    size = {"vocab_size": model.vocab_size, "max_length": plan.max_length}
    return train_wordpiece(texts, **size, needs_words=needs_words, lowercase=lowercase)


def note_absent_classes(present: Collection[str], labels: Sequence[str]) -> None:
    """Say which classes no training row has: nothing else would tell why macro-F1 is low."""
    absent = [label for label in labels if label not in present]
    if absent:
        logger.warning(
            "No row for training is labelled %s: no model can learn that, and macro-F1 counts it as 0. If the data "
            "have no such class, name those they have with --labels.",
            " or ".join(absent),
        )


def _limit(rows: np.ndarray, limit: int | None, *, seed: int) -> np.ndarray:
    """The rows of a part, or a random `limit` of them: the first ones of a sorted list would be of one class."""
    rows = rows.astype(np.int64)
    if limit is not None and limit < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
    return rows
