"""Linear probes: logistic regression on what frozen towers gave, as strong as other training rows say is best.

Legend: N rows, D width of a vector, C classes, T training rows, M rows that are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_utils.splits.copies import find_members
from data_utils.splits.folds import make_folds
from modeling.errors import InputError
from training.launch.console import quiet

# Inverse weights of the L2 penalty (scikit-learn's C), the strongest penalty first.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Parts of the training rows that judge the strengths in turn.
INNER_FOLDS = 3
MAX_ITERATIONS = 1000
# Of a class that a probe never saw: its log loss has to be finite.
SMALLEST_PROBABILITY = 1e-15

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeRows:
    """Rows whose towers have run.

    Attributes:
        guids: N names, each once.
        labels: (N,) class ids.
        groups: (N,) group numbers (`data_utils.splits.splits.group_ids`).
        num_classes: C.
        vectors: (N, D) by "text" and "image".
        present: (N,) bool by "text" and "image": whether the row has one.
    """

    guids: Sequence[str]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    num_classes: int
    vectors: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]

    def standardise(self, kinds: Sequence[str], train: Rows) -> Floats:
        """Vectors side by side, each feature with mean 0 and variance 1 over the training rows.

        Where a text or a picture is missing, its features are 0, which is the mean of the rows that have one.

        Args:
            kinds: of "text" and "image".
            train: (T,) row numbers; the other rows have no say.

        Returns:
            (N, sum of D)
        """
        parts = []
        for kind in kinds:
            vectors, present = self.vectors[kind].astype(np.float64), self.present[kind]
            scaled = np.zeros_like(vectors)
            seen = train[present[train]]
            if len(seen):
                scaled[present] = StandardScaler().fit(vectors[seen]).transform(vectors[present])
            parts.append(scaled)
        return np.concatenate(parts, axis=1)


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
        For each part the numbers of the rows that are fitted, and of those that judge.

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
    return [(train[find_members(split.train, guids)], train[find_members(split.val, guids)]) for split in splits]


def choose_strength(rows: ProbeRows, kinds: Sequence[str], parts: Sequence[tuple[Rows, Rows]]) -> float:
    """The strength whose probes have the lowest log loss on the rows that judge, over all parts; see `deal_inner`.

    Raises:
        InputError: see `fit_probes`.
    """
    losses = np.zeros(len(STRENGTHS))
    for train, judging in parts:
        answers = fit_probes(rows, kinds, train, judging, strengths=STRENGTHS)
        labels = rows.labels[judging][:, None]
        for number, probabilities in enumerate(answers):
            chosen = np.take_along_axis(probabilities, labels, axis=1)
            losses[number] -= np.log(np.maximum(chosen, SMALLEST_PROBABILITY)).sum()
    return STRENGTHS[int(losses.argmin())]


def fit_probes(
    rows: ProbeRows, kinds: Sequence[str], train: Rows, judged: Rows, *, strengths: Sequence[float]
) -> Iterator[Floats]:
    """Multinomial logistic regression by L-BFGS on frozen features (the linear probe of Radford et al. 2021, 3.1).

    Args:
        rows: all N rows.
        kinds: of "text" and "image", which it sees.
        train, judged: (T,) and (M,) row numbers.
        strengths: ascending; each fit starts from the one before, which leads to the same optimum sooner.

    Yields:
        (M, C) probabilities for each strength; 0 for a class without a training row.

    Raises:
        InputError: the training rows are of a single class.
    """
    classes = np.unique(rows.labels[train])
    if len(classes) < 2:
        raise InputError(
            f"A probe would be fitted on {len(train)} rows of a single class, in a fold or in one of the {INNER_FOLDS} "
            "parts of its training rows that choose the strength; give more rows of the other classes."
        )
    features = rows.standardise(kinds, train)
    probe = LogisticRegression(solver="lbfgs", max_iter=MAX_ITERATIONS, warm_start=True)
    for strength in strengths:
        probe.set_params(C=strength).fit(features[train], rows.labels[train])
        probabilities = np.zeros((len(judged), rows.num_classes))
        probabilities[:, classes] = probe.predict_proba(features[judged])
        yield probabilities
