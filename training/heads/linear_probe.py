"""Linear probes: multinomial logistic regression on what frozen towers gave (Radford et al. 2021, section 3.1).

Legend: N rows, D width of a vector, C classes, T training rows, M rows that are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_utils.splits.draw import make_folds
from data_utils.splits.groups import find_members
from modeling.errors import InputError
from training.launch.console import quiet

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
        groups: (N,) group numbers (`data_utils.splits.groups.group_ids`).
        num_classes: C.
        vectors: (N, D) by "text" and "image"; not a number where the row has none.
    """

    guids: Sequence[str]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    num_classes: int
    vectors: Mapping[str, Floats]


def share_classes(rows: ProbeRows, train: Rows) -> Floats:
    """(C,) shares of the classes among the training rows (T,)."""
    return np.bincount(rows.labels[train], minlength=rows.num_classes) / len(train)


def deal_inner(rows: ProbeRows, train: Rows, *, seed: int) -> list[tuple[Rows, Rows]]:
    """Deal training rows into parts that judge the strengths, by class and by whole groups (`make_folds`).

    Args:
        rows: all N rows.
        train: (T,) row numbers.
        seed: of the draw.

    Returns:
        For each part which of the T rows are fitted, and which judge.

    Raises:
        InputError: there are fewer groups or rows than parts.
    """
    guids = [rows.guids[row] for row in train]
    with quiet(True):  # that a class is rare was said of the folds
        try:
            splits = make_folds(guids, rows.labels[train], rows.groups[train], num_folds=INNER_FOLDS, seed=seed)
        except InputError as error:
            raise InputError(
                f"A probe's strength is chosen in {INNER_FOLDS} parts of a fold's training rows, which are too few: "
                f"{len(train)} rows in {len(np.unique(rows.groups[train]))} groups. Give more pairs."
            ) from error
    return [tuple(np.flatnonzero(find_members(part, guids)) for part in (split.train, split.val)) for split in splits]


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

    Raises:
        InputError: the training rows are of a single class.
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
