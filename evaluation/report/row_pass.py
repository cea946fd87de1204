"""One pass over the rows for a report: what text and picture alone say, and which training rows are nearest.

Legend: B rows of a batch, M models, N rows, D width of a tower's vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from data_utils.prepare.columns import PRESENT, TOWER_INPUTS
from data_utils.prepare.pairs import add_row_index
from data_utils.sources.label_forms import name_labels
from data_utils.splits.groups import find_members
from evaluation.predict.ensemble import Ensemble, EvalResult, Part, evaluate_rows
from evaluation.predict.inference import Batch, Outputs
from evaluation.predict.loaded_run import LoadedRun
from evaluation.scores.contributions import INPUTS
from evaluation.scores.metrics import Floats
from evaluation.scores.thresholds import answer_rows
from evaluation.tasks.ablation import AskInputs, blank_batch
from modeling.choices import frozen_modalities
from modeling.ensemble import JointModels, PassOfEach
from run_files.folds_folder import FoldsFolder
from run_files.predictions_csv import PredictionTable
from run_files.row_answers import Neighbour, RowAnswers

NUM_NEIGHBOURS, MAX_ROWS = 3, 20_000  # of more rows no neighbours are sought: their vectors are held in memory
AT_A_TIME = 500


class AskRows(AskInputs):
    """A step: the answers to the four `INPUTS`, and the towers' own vectors {kind_vector: (B, M, D)}."""

    def __init__(self, blank: Batch, kinds: Sequence[str]) -> None:
        super().__init__(INPUTS, blank)
        self._kinds = kinds

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        passes = {kind: models.run_towers(kind, batch) for kind in TOWER_INPUTS}
        texts, images = (models.align(kind, passes[kind], batch) for kind in TOWER_INPUTS)
        vectors = {f"{kind}_vector": _stack(passes[kind], batch[PRESENT[kind]]) for kind in self._kinds}
        return self.fuse(models, batch, texts, images) | vectors


def _stack(passes: PassOfEach, present: Tensor) -> Tensor:
    """Vectors (B, M, D) of length 1, of several pictures that of the first; 0 where a row has none."""
    vectors = torch.stack([each[0].unflatten(0, (len(present), -1))[:, 0] for each in passes if each], dim=1)
    return torch.nn.functional.normalize(vectors.float(), dim=-1) * present[:, None, None]


def ask_rows(
    ensemble: Ensemble, table: PredictionTable, split: str, accelerator: Accelerator, batch_size: int
) -> RowAnswers | None:
    """What the models say of the rows of a table; None on other ranks than the first, and where the rows are others.

    With folds the vectors of different models are set beside each other: only those of frozen towers, which are equal.
    """
    parts, kinds = _choose_parts(ensemble, split)

    def make_step(run: LoadedRun, _: object) -> AskRows:
        return AskRows(blank_batch(run.collator, run.tokenizer), kinds)

    result = evaluate_rows(parts, make_step, batch_size=batch_size, accelerator=accelerator)
    places = {guid: row for row, guid in enumerate(result.guids)}
    if not accelerator.is_main_process or not places.keys() >= {*table.guids}:
        return None
    rows = np.array([places[guid] for guid in table.guids])
    alone = {}
    for name in INPUTS[1:]:
        values = result.outputs[name][rows]
        answers = answer_rows(values, table.labels, ensemble.thresholds(split))
        alone[name] = PredictionTable(table.guids, table.labels, values, table.label_names, answers)
    return RowAnswers(alone, _find_neighbours(ensemble, result, kinds, rows) if kinds else {})


def _choose_parts(ensemble: Ensemble, split: str) -> tuple[list[Part], list[str]]:
    """The rows that are asked, those of training too where neighbours are sought among them; and by which towers."""
    first, parts = ensemble.first, ensemble.load_rows(split)
    kinds = [kind for kind, tower in _towers(first).items() if tower is not None]
    if ensemble.is_cross_validated:
        frozen = frozen_modalities(first.config.freeze, None)
        kinds = [kind for kind in kinds if kind in frozen]
    elif not first.data.streaming:
        (pairs,) = ensemble.load_once(LoadedRun.load_own_pairs)
        wanted = {*first.training_guids(), *parts[0][1]["guid"][:]}
        if len(wanted) <= MAX_ROWS:
            rows = np.flatnonzero(find_members(tuple(wanted), pairs.dataset["guid"][:]))
            return [(first, add_row_index(pairs.dataset.select(rows)))], kinds
    is_small = sum(len(rows) for _, rows in parts) <= MAX_ROWS * len(parts)
    return parts, kinds if is_small and not first.data.streaming else []


def _towers(run: LoadedRun) -> Mapping[str, object]:
    return {"text": run.config.text_tower, "image": run.config.vision_tower}


def _find_neighbours(
    ensemble: Ensemble, result: EvalResult, kinds: Sequence[str], rows: np.ndarray
) -> dict[str, list[Neighbour]]:
    """The training rows nearest to each of some rows: of all that its judge was trained on."""
    vectors: Floats = np.concatenate([result.outputs[f"{kind}_vector"] for kind in kinds], axis=1).astype(np.float32)
    if isinstance(ensemble.folder, FoldsFolder):
        fold_of = ensemble.folder.fold_of_guids()
        folds = np.array([fold_of[guid] for guid in result.guids])
    else:
        folds = 1 - find_members(ensemble.first.training_guids(), result.guids).astype(int)  # 0: trained on
    labels, found = name_labels(result.labels, ensemble.first.label_names), {}
    for start in range(0, len(rows), AT_A_TIME):
        chunk = rows[start : start + AT_A_TIME]
        cosines = vectors[chunk] @ vectors.T / len(kinds)  # each kind's vectors have length 1
        is_other = folds[chunk, None] != folds[None] if ensemble.is_cross_validated else folds[None] == 0
        cosines[~np.broadcast_to(is_other, cosines.shape)] = -np.inf
        cosines[np.arange(len(chunk)), chunk] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
        for row, near, values in zip(chunk, nearest, cosines, strict=True):
            found[result.guids[row]] = [
                Neighbour(result.guids[each], labels[each], float(values[each]))
                for each in near
                if np.isfinite(values[each])
            ]
    return found
