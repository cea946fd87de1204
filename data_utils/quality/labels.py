"""Rows whose label may be wrong: confident learning on the answers of models that had not seen them, and their twins.

Northcutt, Jiang and Chuang 2021, by cleanlab. Legend: N rows, C classes, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.near.pictures import read_pixels
from data_utils.quality.twins import Twins, list_groups
from data_utils.splits.draw import make_folds
from data_utils.splits.groups import find_members
from modeling.errors import InputError

Floats = NDArray[np.float64]
NUM_FOLDS = 5
_FIELDS, _TURNS = 4, 8  # fields per side in which colours and directions of edges are counted, and directions
_MAX_WORDS, _MAX_ITERATIONS = 50_000, 300
_PICTURE_SHARE = 5.0  # length of a row's picture features beside its text's, of length 1


@dataclass(frozen=True)
class Suspect:
    """A row whose label may be wrong.

    Attributes:
        row: its number.
        given, suggested: class numbers: its label, and what most speaks for.
        confidence: the probability of the given label, by which suspects are ranked, the least first.
        by_model, by_twin: what says so: confident learning; a twin in text and picture that is labelled otherwise.
        twin: the row of a twin, in text or in picture, that is labelled otherwise; None without one.
    """

    row: int
    given: int
    suggested: int
    confidence: float
    by_model: bool
    by_twin: bool
    twin: int | None


def find_suspects(labels: NDArray[np.int64], probabilities: Floats, twins: Twins) -> list[Suspect]:
    """The rows whose label may be wrong, the most doubtful first.

    They are those that confident learning finds; and of twins in text and in picture with different labels, of which
    one must be wrong, all but those of the most probable label.

    Args:
        labels: (N,) class numbers, negative without one.
        probabilities: (N, C) by models that had not seen the row or a twin of it; not a number where nobody was asked.
        twins: of the N rows.

    Raises:
        InputError: cleanlab is not installed.
    """
    asked = np.flatnonzero((labels >= 0) & np.isfinite(probabilities).all(axis=1))
    doubtful = set(asked[_learn_confidently(labels[asked], probabilities[asked])].tolist())
    contradicted: dict[int, int] = {}
    for places in list_groups(twins.groups["both"][asked]):
        rows = asked[places]
        likely = max(set(labels[rows].tolist()), key=probabilities[rows].mean(axis=0).__getitem__)
        contradicted |= {row: likely for row in rows.tolist() if labels[row] != likely}
    others = _find_other_twins(labels, twins)
    found = []
    for row in sorted(doubtful | contradicted.keys()):
        given = int(labels[row])
        away = probabilities[row].copy()
        away[given] = -1
        suggested = int(away.argmax()) if row in doubtful else contradicted[row]
        confidence = float(probabilities[row, given])
        found.append(Suspect(row, given, suggested, confidence, row in doubtful, row in contradicted, others.get(row)))
    return sorted(found, key=lambda suspect: suspect.confidence)


def require_cleanlab() -> Callable[..., Any]:
    """cleanlab's `find_label_issues`; `InputError` with what to do where it is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise InputError(
            "Labels that may be wrong are found by cleanlab, which is not installed: pip install 'cleanlab>=2.9', or "
            "leave them out with --labels_by none."
        ) from error
    return find_label_issues


def _learn_confidently(labels: NDArray[np.int64], probabilities: Floats) -> NDArray[np.bool_]:
    """Which of some rows cleanlab holds for mislabelled, with its own defaults."""
    find_label_issues = require_cleanlab()
    if len(np.unique(labels)) < 2:
        return np.zeros(len(labels), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(find_label_issues(labels, probabilities, n_jobs=1), bool)


def _find_other_twins(labels: NDArray[np.int64], twins: Twins) -> dict[int, int]:
    """Of each row a twin of another label: in text and picture where there is one, else in text, else in picture."""
    found: dict[int, int] = {}
    for kind in ("image", "text", "both"):
        for rows in twins.members(kind):
            firsts: dict[int, int] = {}
            for row in rows:
                if labels[row] >= 0:
                    firsts.setdefault(int(labels[row]), row)
            if len(firsts) > 1:
                for row in rows:
                    if labels[row] >= 0:
                        found[row] = next(other for label, other in firsts.items() if label != labels[row])
    return found


def ask_probe(dataset: Dataset, labels: NDArray[np.int64], twins: Twins, *, num_classes: int, seed: int) -> Floats:
    """Probabilities (N, C) of a logistic regression for rows in folds that it wasn't fitted on, nor on their twins.

    It reads words and letters of the text (tf-idf), and colours and edges of the picture in some fields. Not a number
    for rows without a label and for augmented copies.

    Raises:
        InputError: the rows can't be dealt into folds.
    """
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union
    from sklearn.preprocessing import StandardScaler

    columns = dataset.select_columns(["guid", "text"]).with_format(None)[:]
    pictures = _describe_pictures(dataset)
    known = np.flatnonzero(labels >= 0)
    guids = [columns["guid"][row] for row in known.tolist()]
    folds = make_folds(guids, labels[known], twins.together[known], num_folds=NUM_FOLDS, seed=seed)
    found = np.full((len(labels), num_classes), np.nan)
    for fold in folds:
        train, judged = (known[find_members(part, guids)] for part in (fold.train, fold.val))
        words = TfidfVectorizer(
            ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, max_features=_MAX_WORDS
        )
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=_MAX_WORDS)
        vectorizer, scaler = make_union(words, letters), StandardScaler().fit(pictures[train])
        seen = csr_array(scaler.transform(pictures).clip(-5, 5) * (_PICTURE_SHARE / pictures.shape[1]))
        given, asked = ([columns["text"][row] or "." for row in rows.tolist()] for rows in (train, judged))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that don't suffice, which matters little here
            model = LogisticRegression(C=3.0, max_iter=_MAX_ITERATIONS)
            model.fit(csr_array(hstack([vectorizer.fit_transform(given), seen[train]])), labels[train])
        found[judged] = 0
        found[np.ix_(judged, model.classes_)] = model.predict_proba(
            csr_array(hstack([vectorizer.transform(asked), seen[judged]]))
        )
    return found


def _describe_pictures(dataset: Dataset) -> NDArray[np.float32]:
    """Of each row's picture, or their mean: mean and spread of each colour and directions of edges, by fields, (N, D).

    Zeros where there is no picture.
    """
    size = _FIELDS * _FIELDS * (6 + _TURNS)
    sums, counts = np.zeros((len(dataset), size), np.float32), np.zeros((len(dataset), 1), np.float32)
    for row, _, pixels in read_pixels(dataset):
        side = pixels.shape[1] // _FIELDS * _FIELDS
        if side == 0:
            continue
        colours = pixels[:, :side, :side].reshape(3, _FIELDS, side // _FIELDS, _FIELDS, side // _FIELDS)
        means, spreads = (measure(colours, axis=(2, 4), dtype=np.float32) for measure in (np.mean, np.std))
        down, across = np.gradient(pixels.mean(axis=0, dtype=np.float32)[:side, :side])
        turns = ((np.arctan2(down, across) / np.pi + 1) * _TURNS / 2).astype(np.int64) % _TURNS
        field = np.arange(side) * _FIELDS // side
        places = (field[:, None] * _FIELDS + field) * _TURNS + turns
        edges = np.bincount(places.ravel(), np.hypot(down, across).ravel(), _FIELDS * _FIELDS * _TURNS)
        sums[row] += np.concatenate([means.ravel(), spreads.ravel(), np.log1p(edges)])
        counts[row] += 1
    return (sums / np.maximum(counts, 1)).astype(np.float32)
