"""The rows of a sweep: prepared once, dealt into folds, and run once through the frozen towers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from data_utils.splits.draw import make_folds
from data_utils.splits.groups import check_fold_sizes, group_ids
from data_utils.splits.split_file import Split
from data_utils.splits.splits import split_indices
from modeling.choices import FUSIONS
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from modeling.towers import Tower
from training.build.build import build_model
from training.build.plan import ModelPlan
from training.data.data import TrainingData, prepare_data
from training.data.features import use_features
from training.heads.head_trainer import FeatureRows
from training.heads.sweep_recipe import NO_VALIDATION, SweepRecipe, Trial
from training.runs.record import hash_splits


@dataclass(frozen=True)
class SweepData:
    """All rows that any trial sees.

    Attributes:
        prepared: of which they are rows.
        wanted: (N,) their numbers in `prepared.rows`, ascending.
        guids, labels: of the N rows.
        splits: one, or one per fold.
        parts: for each split the rows for training and those for validation, as ascending numbers from 0 to N - 1.
    """

    prepared: TrainingData
    wanted: np.ndarray
    guids: tuple[str, ...]
    labels: tuple[int, ...]
    splits: tuple[Split, ...]
    parts: tuple[tuple[Tensor, Tensor], ...]

    def fingerprints(self) -> dict[str, str]:
        """Hashes of all that shaped the rows and their splits."""
        return self.prepared.fingerprints() | {"folds_sha256": hash_splits(self.splits)}


def prepare_sweep(recipe: SweepRecipe, plan: ModelPlan) -> SweepData:
    """Read, decode and tokenise all rows; the split, or the folds, are those of the first trial's seed.

    Raises:
        InputError: the data, the split or so many folds can't be had, or nothing is left for validation.
    """
    first, num_folds = recipe.trials[0], recipe.num_folds
    data = recipe.data if num_folds is None else replace(recipe.data, val_ratio=0.0)
    prepared = prepare_data(data, plan, first.model, seed=first.training.seed)
    wanted = np.sort(np.concatenate([prepared.train_rows, prepared.val_rows]))
    rows = prepared.rows.select(wanted)
    guids, labels = tuple(rows["guid"][:]), tuple(rows["label"][:])
    if num_folds is None:
        if not len(prepared.val_rows):
            raise InputError(NO_VALIDATION)
        splits = (prepared.split,)
        parts = [tuple(wanted.searchsorted(part) for part in (prepared.train_rows, prepared.val_rows))]
    else:
        groups = group_ids(rows)
        splits = make_folds(guids, labels, groups, num_folds=num_folds, seed=first.training.seed)
        check_fold_sizes(splits, rows, groups)
        parts = [split_indices(split, guids)[:2] for split in splits]
    tensors = tuple((torch.from_numpy(train), torch.from_numpy(val)) for train, val in parts)
    return SweepData(prepared, wanted, guids, labels, splits, tensors)


class HeadBuilder:
    """Models of the trials, with the initial weights that train.py gives them; several threads may use it.

    All share their frozen towers, which are read once.
    """

    def __init__(self, recipe: SweepRecipe, data: SweepData, plan: ModelPlan) -> None:
        self.recipe, self.data, self.plan = recipe, data, plan
        self._towers: dict[str, Tower] = {}
        self._lock = Lock()

    def build(self, trial: Trial) -> SentimentClassifier:
        """The trial's model before training, on its device.

        Raises:
            InputError: a tower's weights can't be had.
        """
        with self._lock:  # initial weights are drawn from the one generator of the process
            set_seed(trial.training.seed)
            model = build_model(
                self.plan,
                trial.model,
                tokenizer=self.data.prepared.tokenizer,
                labels=self.recipe.data.labels,
                text_cleaning=self.recipe.data.text_cleaning,
                towers=self._towers,
            )
            self._towers |= model.towers()
            return model.to(trial.training.device)


def read_features(heads: HeadBuilder, trials: Sequence[Trial]) -> dict[str, FeatureRows]:
    """What the frozen towers make of all rows, by the trials' fusion heads; those of the same needs share it in memory.

    Raises:
        InputError: towers or cache can't be had.
    """
    recipe, data = heads.recipe, heads.data
    trial_of = {trial.model.fusion: trial for trial in trials}
    args = recipe.trials[0].training
    found: dict[str, FeatureRows] = {}
    for reader in dict.fromkeys(choose_reader(fusion, trial_of) for fusion in trial_of):
        prepared, collator = use_features(
            heads.build(trial_of[reader]),
            data.prepared,
            PairCollator(data.prepared.tokenizer.pad_token_id, heads.plan.picture.image_size),
            model_args=trial_of[reader].model,
            data_args=recipe.data,
            args=args,
        )
        found[reader] = FeatureRows(add_row_index(prepared.rows.select(data.wanted)), collator, args.device)
    return {fusion: found[choose_reader(fusion, trial_of)] for fusion in trial_of}


def choose_reader(fusion: str, fusions: Iterable[str]) -> str:
    """The head among `fusions` whose features serve this one too: with vectors of both modalities, if there is one."""
    if FUSION_HEADS[fusion].reads_tokens:
        return fusion
    both = (name for name in fusions if len(FUSIONS[name]) > 1 and not FUSION_HEADS[name].reads_tokens)
    return next(both, fusion)
