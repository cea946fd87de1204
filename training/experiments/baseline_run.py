"""Judging the baselines of `training.baselines`: class shares, and linear probes on the vectors of frozen towers.

A probe is a multinomial logistic regression on what frozen towers gave (Radford et al. 2021, section 3.1).
Legend: N rows, D width of a vector, C classes, T training rows, M rows that are judged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_utils.console.progress import progress
from data_utils.console.tables import format_interval, format_table
from data_utils.prepare.pairs import add_row_index
from data_utils.splits.draw import make_folds
from data_utils.splits.groups import find_members
from data_utils.splits.split_file import Split
from evaluation.scores.scoring import score_predictions
from modeling.errors import InputError
from run_files.output import write_json
from run_files.predictions_csv import write_predictions_csv
from training.build.plan import plan_model
from training.data.data import TrainingData, prepare_data
from training.data.features import use_features
from training.experiments.cross_validation import draw_folds
from training.experiments.training import build_inputs
from training.flags.arguments import SentimentTrainingArguments
from training.flags.parsing import Flags, settle
from training.heads.head_trainer import FeatureRows
from training.launch.console import quiet
from training.runs.claim import lock_run, make_run_folder, open_folder
from training.runs.record import describe_run

logger = logging.getLogger(__name__)
SECTION = "baselines"
MAJORITY = "majority"
KINDS = ("text", "image")
PROBES = {"text": ("text",), "image": ("image",), "both": KINDS}
# Inverse weights of the L2 penalty (scikit-learn's C), the strongest penalty first.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Parts of the training rows that judge the strengths in turn.
INNER_FOLDS = 3
MAX_ITERATIONS = 1000

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeRows:
    """Rows whose towers have run.

    Attributes:
        guids: N names, each once.
        labels: (N,) class ids.
        groups: (N,) group numbers (`data_utils.splits.groups.find_groups`).
        num_classes: C.
        vectors: (N, D) by "text" and "image"; not a number where the row has none.
    """

    guids: Sequence[str]
    labels: Rows
    groups: Rows
    num_classes: int
    vectors: Mapping[str, Floats]


def run_baselines(flags: Flags) -> None:
    """Judge all baselines, write their predictions and figures, and show a table."""
    flags = settle(flags)
    run = make_run_folder(flags)
    with lock_run(run):
        if run.config_file.exists() and SECTION not in run.load_arguments():
            raise InputError(f"--output_dir {run.path} holds a training run; choose another folder for the baselines.")
        splits, _ = draw_folds(flags)  # before the encoders run: they can fail
        prepared, rows, args = read_rows(flags)
        folds = progress(splits, description="fitting", unit="folds", is_shown=not args.disable_tqdm, stays=False)
        answers, strengths = judge_baselines(rows, folds, seed=args.seed)
        sections = describe_run(run, flags._replace(training=args), prepared.fingerprints())
        sections[SECTION] = {"num_folds": args.folds, "inner_folds": INNER_FOLDS, "strengths": list(STRENGTHS)}
        open_folder(run, sections, splits, prepared.quarantine)
        prepared.quarantine.tell(run.quarantine_file)
        numbers = {guid: row for row, guid in enumerate(rows.guids)}
        guids = sorted(guid for split in splits for guid in split.test)
        chosen, scores = [numbers[guid] for guid in guids], {}
        for name, probabilities in answers.items():
            held_out = probabilities[chosen], rows.labels[chosen], flags.data.labels
            write_predictions_csv(run.path / f"{name}.csv", guids, held_out[1], held_out[0], held_out[2])
            scores[name] = score_predictions(*held_out)
            if name in strengths:
                scores[name]["strengths"] = strengths[name]
        write_json(run.metrics_file, {"num_folds": args.folds, "seed": args.seed, SECTION: scores})
    logger.info("%s\nThe baselines are in %s.", format_scores(scores), run.path)


def read_rows(flags: Flags) -> tuple[TrainingData, ProbeRows, SentimentTrainingArguments]:
    """What both towers give of all rows, run or from the cache; also the arguments with the precision of it."""
    plan = plan_model(flags.model, flags.data)
    prepared = prepare_data(flags.data, plan, flags.model, seed=flags.training.seed)
    model, collator, args = build_inputs(flags, plan, prepared)
    prepared, collator = use_features(
        model, prepared, collator, model_args=flags.model, data_args=flags.data, args=args
    )
    dataset = prepared.rows.select(np.sort(prepared.used_rows))
    stored = FeatureRows(add_row_index(dataset), collator, torch.device("cpu"))
    batch = {name: values.numpy() for name, values in stored.batch(torch.arange(len(dataset))).items()}
    vectors = {kind: np.where(batch[f"{kind}_present"][:, None], batch[f"{kind}_vector"], np.nan) for kind in KINDS}
    rows = ProbeRows(
        guids=tuple(dataset["guid"][:]),
        labels=batch["labels"],
        groups=prepared.groups[np.sort(prepared.used_rows)],
        num_classes=len(flags.data.labels),
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
    """
    answers = {name: np.zeros((len(rows.guids), rows.num_classes)) for name in (MAJORITY, *PROBES)}
    strengths: dict[str, list[float]] = {name: [] for name in PROBES}
    for split in splits:
        train, judged = (np.flatnonzero(find_members(part, rows.guids)) for part in (split.train, split.test))
        parts = deal_inner(rows, train, seed=seed)
        answers[MAJORITY][judged] = np.bincount(rows.labels[train], minlength=rows.num_classes) / len(train)
        for name, kinds in PROBES.items():
            answers[name][judged], strength = fit_probe(rows, kinds, train, judged, parts=parts)
            strengths[name].append(strength)
    return answers, strengths


def deal_inner(rows: ProbeRows, train: Rows, *, seed: int) -> list[tuple[Rows, Rows]]:
    """Deal training rows (T,) into parts that judge the strengths, by class and by whole groups (`make_folds`).

    Returns:
        For each part which of the T rows are fitted, and which judge.
    """
    guids, labels, groups = [rows.guids[row] for row in train], rows.labels[train], rows.groups[train]
    with quiet(True):  # that a class is rare was said of the folds
        try:
            splits = make_folds(guids, labels, groups, num_folds=INNER_FOLDS, seed=seed)
        except InputError as error:
            raise InputError(
                f"A probe's strength is chosen in {INNER_FOLDS} parts of a fold's training rows, which are too few: "
                f"{len(train)} rows in {len(np.unique(groups))} groups. Give more pairs."
            ) from error
    masks = ((find_members(split.train, guids), find_members(split.val, guids)) for split in splits)
    return [(np.flatnonzero(fitted), np.flatnonzero(judging)) for fitted, judging in masks]


def fit_probe(
    rows: ProbeRows, kinds: Sequence[str], train: Rows, judged: Rows, *, parts: Sequence[tuple[Rows, Rows]]
) -> tuple[Floats, float]:
    """Fit on training rows, at the strength with the lowest log loss on the parts that judge.

    Each feature has mean 0 and variance 1 over the training rows that have it, and is 0 where the row has none.

    Args:
        rows: all N rows.
        kinds: of "text" and "image", which the probe sees.
        train, judged: (T,) and (M,) row numbers.
        parts: see `deal_inner`.

    Returns:
        (M, C) probabilities, 0 for a class without a training row; and the strength.
    """
    classes = np.unique(rows.labels[train])
    if len(classes) < 2:
        raise InputError(
            f"A probe would be fitted on {len(train)} rows of a single class; give more rows of the other classes."
        )
    features = np.concatenate([rows.vectors[kind] for kind in kinds], axis=1)
    regression = LogisticRegressionCV(
        Cs=STRENGTHS,
        l1_ratios=(0.0,),
        cv=parts,
        scoring="neg_log_loss",
        max_iter=MAX_ITERATIONS,
        use_legacy_attributes=False,
    )
    missing = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    probe = make_pipeline(StandardScaler(), missing, regression)
    with np.errstate(invalid="ignore"):  # of the mean where no training row has a text, or none a picture
        probe.fit(features[train], rows.labels[train])
    probabilities = np.zeros((len(judged), rows.num_classes))
    probabilities[:, classes] = probe.predict_proba(features[judged])
    return probabilities, float(regression.C_)


def format_scores(scores: Mapping[str, dict[str, Any]]) -> str:
    """A table of accuracy and macro F1 with intervals, one line per baseline."""
    lines = [["baseline", "accuracy", "macro-F1"]]
    for name, found in scores.items():
        figures = (format_interval(found[key], found[f"{key}_interval"]) for key in ("accuracy", "macro_f1"))
        lines.append([name, *figures])
    num_rows = scores[MAJORITY]["num_rows"]
    return f"out of fold, {num_rows} rows, 95 % intervals in brackets (bootstrap over rows)\n{format_table(lines)}"
