"""evaluate.py compare: runs of other folds or other data are said to be so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from comparing import draw_probabilities, write_run

from data_utils.splits.split_file import Split, save_split
from evaluation.compare.comparison import compare_runs
from run_files.run_folder import RunFolder

NUM_ROWS = 60
GUIDS = [f"{number:04d}" for number in range(NUM_ROWS)]
OTHER_FOLDS, OTHER_DATA = "dealt into folds in other ways", "hash of the data"


def write_folds_run(root: Path, name: str, *, num_folds: int = 3, deal: int = 0, data: str = "a", turn: int = 0) -> str:
    """A folds run of 60 rows, dealt by the seed `deal`; its first fold is number `turn`."""
    run = RunFolder(write_run(root, name, draw_probabilities(1, len(name), NUM_ROWS), folds=True))
    numbers = (np.random.default_rng(deal).permutation(NUM_ROWS) + turn) % num_folds
    for fold in range(num_folds):
        held_out = tuple(guid for guid, number in zip(GUIDS, numbers, strict=True) if number == fold)
        save_split(Split((), (), None, None, test=held_out), run.fold_split_file(fold))
    environment = {"data_fingerprint": data}
    run.save_arguments({"model": {}, "data": {}, "training": {"seed": deal}, "environment": environment})
    return str(run.path)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    return partial(write_folds_run, tmp_path)


def join_remarks(*paths: str) -> str:
    return "\n".join(compare_runs(paths).remarks)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"turn": 1}, None),  # the same folds under other numbers
        ({"num_folds": 5}, "one 3 folds of seed 0; third 5 folds of seed 0"),
        ({"deal": 1}, "one 3 folds of seed 0; third 3 folds of seed 1"),
    ],
)
def test_other_folds_are_said(make: Callable[..., str], change: dict[str, int], shown: str | None) -> None:
    remarks = join_remarks(make("one"), make("third", **change))
    assert (OTHER_FOLDS in remarks) == (shown is not None)
    assert shown is None or shown in remarks
    assert OTHER_DATA not in remarks


def test_other_data_are_said(make: Callable[..., str]) -> None:
    remarks = join_remarks(make("one"), make("third", data="b"), make("second", data="b"))
    assert f"{OTHER_DATA} (data_fingerprint in config.yaml) is not the same in all runs (one; third, second)" in remarks


def test_file_has_the_origin_of_its_folder_and_a_lone_one_none(make: Callable[..., str], tmp_path: Path) -> None:
    first, other = make("one"), Path(make("third", deal=1, data="b"), "predictions_oof.csv")
    remarks = join_remarks(first, str(other))
    assert OTHER_FOLDS in remarks
    assert OTHER_DATA in remarks
    (tmp_path / "lone.csv").write_bytes(other.read_bytes())
    remarks = join_remarks(first, str(tmp_path / "lone.csv"))
    assert OTHER_FOLDS not in remarks
    assert OTHER_DATA not in remarks
