"""evaluate.py --predict FILE: answer every row of a list with the run's models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_utils.console.screen import show
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pairs import add_row_index
from evaluation.arguments import EvaluationArguments
from evaluation.predict.held_out import read_held_out
from evaluation.predict.members import Members, predict_rows
from evaluation.scores.abstention import abstain_out_of_fold, format_abstention
from evaluation.scores.calibration import apply_temperature
from evaluation.scores.contributions import (
    COLUMNS,
    compute_contributions,
    format_contributions,
    summarise_contributions,
)
from evaluation.scores.scoring import format_metrics
from evaluation.tasks.prediction import PredictionFiles, find_pair_dir, write_predictions
from evaluation.tasks.split_scoring import Join, run_classify, run_inputs, warn_of_untrained_masks
from run_files.output import write_json

logger = logging.getLogger(__name__)


def predict_list(members: Members, arguments: EvaluationArguments, join: Join) -> None:
    """Write a line per row of the list, and beside it probabilities and what else is asked for.

    Several models answer with the mean of their probabilities.
    """
    files = PredictionFiles(source=Path(arguments.predict), output=Path(arguments.output))
    files.prepare_list(members.first)
    pair_dir = find_pair_dir(files.source, members.first, data_dir=arguments.data_dir)
    abstention = None if arguments.abstain is None else abstain_out_of_fold(*read_held_out(members), arguments.abstain)
    found = [run.load_rows(files.source, pair_dir=pair_dir, for_prediction=True) for run in members.runs]
    parts = [(run, add_row_index(pairs.dataset)) for run, pairs in zip(members.runs, found, strict=True)]
    accelerator = join()
    if arguments.contributions:
        warn_of_untrained_masks(members.first)
        outputs = predict_rows(parts, lambda *each: run_inputs(*each, arguments, accelerator, with_none=True))
        outputs["probabilities"] = outputs["full"]
    else:
        outputs = predict_rows(parts, lambda *each: run_classify(*each, arguments, accelerator))
    if not accelerator.is_main_process:
        return
    probabilities, names = outputs["probabilities"], members.first.label_names
    columns = _list_columns(outputs, abstention, contributions=arguments.contributions)
    metrics = write_predictions(files, parts[0][1], found[0].quarantine, probabilities, names, columns=columns)
    own = members.first.is_trained_in(pair_dir)
    _warn_of_known_rows(members, parts[0][1]["guid"][:], parts[0][1]["label"][:], own_folder=own)
    if metrics is not None:
        show(format_metrics(metrics, title=f"labelled rows of {files.source}"), "")
    if arguments.contributions:
        summary = summarise_contributions(compute_contributions(outputs), names)
        write_json(files.contributions, summary)
        show(format_contributions(summary, title=files.source.name), "")
    if abstention is not None:
        share = f"answered here: {np.mean(columns['answered']):.1%}, see the columns confidence and answered"
        show(format_abstention(abstention), share, "")
    show(f"{len(probabilities)} predictions are in {files.output}, probabilities in {files.probabilities}.")


def _warn_of_known_rows(members: Members, guids: Sequence[str], labels: Sequence[int], *, own_folder: bool) -> None:
    """Say so where rows have the names of rows that a model was trained on.

    Without labels there are no figures to be flattered, and equal names mean something in the run's own folder alone.
    """
    trained = {guid for run in members.runs for guid in run.training_guids()}
    labelled = [label != NO_LABEL_ID for label in labels]
    known = sum(guid in trained for guid, has_label in zip(guids, labelled, strict=True) if has_label)
    unlabelled = sum(guid in trained for guid, has_label in zip(guids, labelled, strict=True) if not has_label)
    if unlabelled and own_folder:
        logger.warning(
            "%d of the rows without a label are rows that the run was trained on (the same guids and files): its "
            "answers for them are surer, and more often right, than for new rows.",
            unlabelled,
        )
    if known:
        logger.warning(
            "%d of the labelled rows have the guids of rows that the run was trained on: if they are these rows, the "
            "figures are too good. evaluate.py RUN judges the run's own rows.",
            known,
        )


def _list_columns(
    outputs: Mapping[str, NDArray[np.float64]], abstention: Mapping[str, Any] | None, *, contributions: bool
) -> dict[str, NDArray[Any]]:
    """Further columns of the probabilities' file: {name: (N,)}."""
    columns: dict[str, NDArray[Any]] = {}
    if contributions:
        found = compute_contributions(outputs)
        columns |= {name: found[name] for name in COLUMNS}
    if abstention is not None:
        confidence = apply_temperature(outputs["probabilities"], abstention["temperature"]).max(axis=1)
        columns["confidence"] = confidence
        columns["answered"] = confidence >= abstention["chosen"]["threshold"]
    return columns
