"""Judging the baselines of `training.baselines`: class shares, and linear probes on the vectors of frozen towers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from data_utils.console.progress import progress
from data_utils.console.tables import format_interval, format_table
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from data_utils.sources.arguments import DataArguments
from data_utils.splits.groups import find_members, group_ids
from data_utils.splits.split_file import Split, save_split
from evaluation.scores.scoring import score_predictions
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder
from training.build.build import build_model
from training.build.plan import plan_model
from training.data.data import TrainingData, prepare_data
from training.data.features import use_features
from training.experiments.cross_validation import draw_folds
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments
from training.heads.head_trainer import FeatureRows
from training.heads.linear_probe import INNER_FOLDS, STRENGTHS, Floats, ProbeRows, deal_inner, fit_probe, share_classes
from training.runs.claim import lock_run, make_run_folder, move_aside
from training.runs.record import describe_run

logger = logging.getLogger(__name__)
SECTION = "baselines"
MAJORITY = "majority"
KINDS = ("text", "image")
PROBES = {"text": ("text",), "image": ("image",), "both": KINDS}


def run_baselines(model: ModelArguments, data: DataArguments, args: SentimentTrainingArguments) -> None:
    """Judge all baselines, write their predictions and figures, and show a table.

    Raises:
        InputError: data, towers, folds or folder can't be used; it says why.
    """
    run = make_run_folder(model, args)
    with lock_run(run):
        if run.config_file.exists() and SECTION not in run.load_arguments():
            raise InputError(f"--output_dir {run.path} holds a training run; choose another folder for the baselines.")
        splits, _ = draw_folds(model, data, args)  # before the encoders run: they can fail
        prepared, rows, args = read_rows(model, data, args)
        folds = progress(splits, description="fitting", unit="folds", is_shown=not args.disable_tqdm, stays=False)
        answers, strengths = judge_baselines(rows, folds, seed=args.seed)
        _open_folder(run, model, data, args, splits=splits, prepared=prepared)
        scores = _write_answers(run, rows, splits, answers, data.labels)
        for name, chosen in strengths.items():
            scores[name]["strengths"] = chosen
        write_json(run.metrics_file, {"num_folds": args.folds, "seed": args.seed, SECTION: scores})
    logger.info("%s\nThe baselines are in %s.", format_scores(scores), run.path)


def read_rows(
    model: ModelArguments, data: DataArguments, args: SentimentTrainingArguments
) -> tuple[TrainingData, ProbeRows, SentimentTrainingArguments]:
    """Run both towers over all rows, or find in the cache what they gave; also the arguments with the precision of it.

    Raises:
        InputError: data, towers or cache can't be had.
    """
    plan = plan_model(model, data)
    prepared = prepare_data(data, plan, model, seed=args.seed)
    set_seed(args.seed)
    classifier = build_model(
        plan, model, tokenizer=prepared.tokenizer, labels=data.labels, text_cleaning=data.text_cleaning
    )
    args = args.with_precision_for(classifier)
    collator = PairCollator(prepared.tokenizer.pad_token_id, plan.picture.image_size)
    prepared, collator = use_features(classifier, prepared, collator, model_args=model, data_args=data, args=args)
    dataset = prepared.rows.select(np.sort(prepared.used_rows))
    stored = FeatureRows(add_row_index(dataset), collator, torch.device("cpu"))
    batch = {name: values.numpy() for name, values in stored.batch(torch.arange(len(dataset))).items()}
    vectors = {kind: np.where(batch[f"{kind}_present"][:, None], batch[f"{kind}_vector"], np.nan) for kind in KINDS}
    rows = ProbeRows(
        guids=tuple(dataset["guid"][:]),
        labels=batch["labels"],
        groups=group_ids(dataset),
        num_classes=len(data.labels),
        vectors={kind: values.astype(np.float64) for kind, values in vectors.items()},
    )
    return prepared, rows, args


def judge_baselines(
    rows: ProbeRows, splits: Iterable[Split], *, seed: int
) -> tuple[dict[str, Floats], dict[str, list[float]]]:
    """Of every held-out row, what the baselines say that were fitted on the rows its fold leaves.

    Args:
        rows: N rows.
        splits: of the folds, which judge their test parts.
        seed: of the parts in which the probes' strengths are chosen.

    Returns:
        By name (N, C) probabilities, 0 for rows in no test part; and by probe the strength chosen in each fold.

    Raises:
        InputError: the training rows of a fold are too few, or of a single class.
    """
    answers = {name: np.zeros((len(rows.guids), rows.num_classes)) for name in (MAJORITY, *PROBES)}
    strengths: dict[str, list[float]] = {name: [] for name in PROBES}
    for split in splits:
        train, judged = (np.flatnonzero(find_members(part, rows.guids)) for part in (split.train, split.test))
        parts = deal_inner(rows, train, seed=seed)
        answers[MAJORITY][judged] = share_classes(rows, train)
        for name, kinds in PROBES.items():
            answers[name][judged], strength = fit_probe(rows, kinds, train, judged, parts=parts)
            strengths[name].append(strength)
    return answers, strengths


def format_scores(scores: dict[str, dict[str, Any]]) -> str:
    """A table of accuracy and macro F1 with intervals, one line per baseline."""
    lines = [["baseline", "accuracy", "macro-F1"]]
    for name, found in scores.items():
        figures = (format_interval(found[key], found[f"{key}_interval"]) for key in ("accuracy", "macro_f1"))
        lines.append([name, *figures])
    num_rows = scores[MAJORITY]["num_rows"]
    return f"out of fold, {num_rows} rows, 95 % intervals in brackets (bootstrap over rows)\n{format_table(lines)}"


def _open_folder(
    run: RunFolder,
    model: ModelArguments,
    data: DataArguments,
    args: SentimentTrainingArguments,
    *,
    splits: Sequence[Split],
    prepared: TrainingData,
) -> None:
    """Move earlier baselines aside, and write what these were made of."""
    if run.config_file.exists():
        move_aside(run.path)
    sections = describe_run(run, model, data, args, prepared.fingerprints())
    sections[SECTION] = {"num_folds": args.folds, "inner_folds": INNER_FOLDS, "strengths": list(STRENGTHS)}
    run.save_arguments(sections)
    for number, split in enumerate(splits):
        save_split(split, run.fold_split_file(number))
    prepared.quarantine.save(run.quarantine_file)
    prepared.quarantine.tell(run.quarantine_file)


def _write_answers(
    run: RunFolder, rows: ProbeRows, splits: Sequence[Split], answers: dict[str, Floats], label_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Write {name}.csv of the held-out rows, sorted by guid; returns the figures by name."""
    numbers = {guid: row for row, guid in enumerate(rows.guids)}
    guids = sorted(guid for split in splits for guid in split.test)
    chosen = [numbers[guid] for guid in guids]
    scores = {}
    for name, probabilities in answers.items():
        path = run.path / f"{name}.csv"
        write_predictions_csv(path, guids, rows.labels[chosen], probabilities[chosen], label_names)
        scores[name] = score_predictions(probabilities[chosen], rows.labels[chosen], label_names)
    return scores
