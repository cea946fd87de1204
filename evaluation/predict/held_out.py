"""The answers of a run for labelled rows that its models did not see in training, as train.py left them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.predict.ensemble import Ensemble
from evaluation.scores.calibration import apply_temperature
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder
from run_files.predictions_csv import read_predictions_csv

# Of an ordinary run, whose validation rows are dealt into so many parts to judge by the one what the others chose.
NUM_PARTS = 5


def read_held_out(ensemble: Ensemble) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Probabilities (N, C), labels (N,) and fold numbers (N,) of the out-of-fold rows, else of the validation rows.

    The probabilities are those that `evaluate.py` gives for the rows, scaled by the models' temperatures: for each fold
    by one that was fitted on the other folds. Validation rows also chose the best epoch, and twins among them may come
    into different parts here; both flatters what is read off them.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    folder = ensemble.folder
    if isinstance(folder, FoldsFolder):
        table = read_predictions_csv(folder.predictions_oof_file)
        fold_of = folder.fold_of_guids()
        unknown = next((guid for guid in table.guids if guid not in fold_of), None)
        if unknown is not None:
            raise InputError(
                f"{folder.predictions_oof_file} has the guid {unknown!r}, which no fold in {folder.path / 'splits'} "
                "holds out: the files are of two runs; copy them again."
            )
        return table.probabilities, table.labels, np.array([fold_of[guid] for guid in table.guids])
    if not folder.predictions_file.is_file():
        raise InputError(
            f"The run {str(folder.path)!r} judged no rows that it wasn't trained on (--val_ratio 0), from which a "
            "threshold could be learned; train with a validation part or with --folds."
        )
    table = read_predictions_csv(folder.predictions_file)
    probabilities = apply_temperature(table.probabilities, ensemble.first.config.temperature)
    return probabilities, table.labels, np.arange(len(table.guids)) % NUM_PARTS
