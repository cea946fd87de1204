"""What it does to figures which rows are never parted: none, equal ones, near ones (--group_by).

    python -m benchmarks.groupings --config configs/best.yaml --data_dir data/project5

Flags are those of `training.baselines`, with --folds 5. A linear probe on both towers' vectors is judged out of fold,
with the folds of several seeds; also on rows with a near twin and no equal one, which folds by equal rows may part.
"""

from __future__ import annotations

import sys
import warnings
from itertools import product

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_utils.splits.draw import make_folds
from data_utils.splits.groups import find_members, group_ids
from training.baselines import read_flags
from training.experiments.baseline_run import ProbeRows, read_rows
from training.flags.parsing import settle

SEEDS, FOLDS, WIDTH, STRENGTH = 8, 5, 512, 1e-3


def judge(rows: ProbeRows, vectors: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The classes (N,) that a probe answers for rows of folds by these groups."""
    answers = np.zeros(len(rows.labels), np.int64)
    for fold in make_folds(rows.guids, rows.labels, groups, num_folds=FOLDS, seed=seed):
        train, judged = (find_members(part, rows.guids) for part in (fold.train, fold.val))
        model = LogisticRegression(C=STRENGTH, max_iter=200).fit(vectors[train], rows.labels[train])
        answers[judged] = model.predict(vectors[judged])
    return answers


def main() -> None:
    """Print means over the seeds, and standard errors of what near groups change."""
    warnings.filterwarnings("ignore", message="lbfgs failed")
    prepared, rows, _ = read_rows(settle(read_flags([*sys.argv[1:], "--group_by", "near"])))
    equal = group_ids(prepared.rows.select(np.sort(prepared.used_rows)))
    groupings = {"none": np.arange(len(equal)), "equal": equal, "near": rows.groups}
    sizes = {name: np.unique(groups, return_inverse=True, return_counts=True) for name, groups in groupings.items()}
    near_only = np.equal(sizes["equal"][2][sizes["equal"][1]], 1) & (sizes["near"][2][sizes["near"][1]] > 1)
    counts = [len(sizes[name][0]) for name in ("equal", "near")]
    print(f"{counts[0]} groups by equal rows, {counts[1]} by near; {near_only.sum()} rows have a near twin only")
    joined = np.concatenate([np.nan_to_num(rows.vectors[kind]) for kind in ("text", "image")], axis=1)
    vectors = make_pipeline(StandardScaler(), PCA(min(WIDTH, *joined.shape), random_state=0)).fit_transform(joined)
    scores = {name: np.zeros((SEEDS, 3)) for name in groupings}
    for seed, (name, groups) in product(range(SEEDS), groupings.items()):
        answers = judge(rows, vectors, groups, seed)
        right = answers == rows.labels
        scores[name][seed] = right.mean(), f1_score(rows.labels, answers, average="macro"), right[near_only].mean()
    for name, found in scores.items():
        accuracy, macro, of_twins = found.mean(axis=0)
        print(f"{name}: accuracy {accuracy:.4f}, macro-F1 {macro:.4f}; of rows with a near twin only {of_twins:.4f}")
    change = scores["near"] - scores["equal"]
    errors = change.std(axis=0, ddof=1) / SEEDS**0.5
    shown = [f"{mean:+.4f} ± {error:.4f}" for mean, error in zip(change.mean(axis=0), errors, strict=True)]
    print(f"near - equal: {', '.join(shown)}")


if __name__ == "__main__":
    main()
