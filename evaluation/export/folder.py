"""evaluate.py FOLDS --export transformers: all models of a cross-validated run as one model in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_utils.system.files import copy_mode
from evaluation.arguments import EvaluationArguments
from evaluation.predict.ensemble import Ensemble
from evaluation.predict.joint_models import find_equal_towers
from evaluation.scores.scoring import score_answers
from evaluation.scores.tasks import TASKS
from modeling.ensemble import SentimentEnsemble
from modeling.errors import InputError
from modeling.pipeline import save_alone
from modeling.processor import SentimentProcessor
from run_files.folds_folder import FoldsFolder
from run_files.model_card import write_card
from run_files.predictions_csv import read_predictions_csv


def export_folder(ensemble: Ensemble, arguments: EvaluationArguments, folder: Path) -> dict[str, Any]:
    """Fill a folder with all models as one; returns how many there are.

    Raises:
        InputError: it is no cross-validated run, or its models take different inputs.
    """
    run = ensemble.folder
    if not isinstance(run, FoldsFolder):
        raise InputError(f"Got --export {arguments.export}, but {run.model_dir} is such a folder already.")
    if len({each.input_key for each in ensemble.runs}) > 1:
        raise InputError(
            f"The models of {run.path} take different inputs, as those from scratch do, each with a tokenizer of its "
            "own rows; one model takes one: export a cross-validation of pretrained encoders."
        )
    models = [each.load_model() for each in ensemble.runs]
    first, *others = models
    shared = [kind for kind in first.towers() if all(kind in find_equal_towers(each, first) for each in others)]
    _write(SentimentEnsemble.of(models, shared), ensemble, run, folder)
    return {"models": len(models)}


def _write(model: SentimentEnsemble, ensemble: Ensemble, run: FoldsFolder, folder: Path) -> None:
    model.save_pretrained(folder)
    first, held_out = ensemble.first, read_predictions_csv(run.predictions_oof_file, any_task=True)
    processor = SentimentProcessor.from_config(model.config, first.tokenizer, first.data.max_image_pixels)
    save_alone(folder, SentimentEnsemble, processor)
    figures = score_answers(held_out.probabilities, held_out.labels, held_out.answers, held_out.label_names)
    configs = [each.config for each in ensemble.runs]
    write_card(run, folder, configs, {"out of fold": figures}, TASKS[model.config.task].scores)
    copy_mode(folder / "config.json")
