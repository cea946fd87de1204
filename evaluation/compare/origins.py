"""What compared runs were made of, as far as their folders say: the data and the folds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_utils.splits.split_file import load_split
from data_utils.system.schema import read_json
from modeling.errors import InputError
from run_files.run_folder import RunFolder


@dataclass(frozen=True)
class Origin:
    """Of a run; None stands for what its folder doesn't say.

    Attributes:
        fingerprint: hash of the data and of their preparation.
        preparation: of texts and pictures, and the classes, as text.
        fold_of: {guid: fold that held it out}.
        seed: by which the folds were drawn.
    """

    fingerprint: str | None = None
    preparation: str | None = None
    fold_of: Mapping[str, int] | None = None
    seed: int | None = None

    def describe_folds(self) -> str:
        """5 folds of seed 42"""
        return f"{len(set((self.fold_of or {}).values()))} folds of seed {self.seed}"


def read_origin(folder: Path) -> Origin:
    """Of a folder of train.py or of baselines; of another one nothing is known.

    Raises:
        InputError: a split of the folder is damaged.
    """
    run = RunFolder(folder)
    if not run.is_run():
        return Origin()
    sections = run.load_arguments()
    splits = sorted((folder / "splits").glob("fold-*.json"))
    fold_of = {guid: number for number, path in enumerate(splits) for guid in load_split(path).test}
    return Origin(
        fingerprint=sections["environment"].get("data_fingerprint"),
        preparation=_read_preparation(run),
        fold_of=fold_of or None,
        seed=sections["training"].get("seed"),
    )


def remark_on_origins(names: Sequence[str], origins: Sequence[Origin], guids: Sequence[str]) -> Iterable[str]:
    """Sentences on what differs between runs beside their models.

    Args:
        names, origins: of the runs.
        guids: the rows that are compared.
    """
    known = [(name, origin) for name, origin in zip(names, origins, strict=True) if origin.fold_of is not None]
    if len({_number_folds(origin.fold_of, guids) for _, origin in known}) > 1:
        each = "; ".join(f"{name} {origin.describe_folds()}" for name, origin in known)
        yield (
            f"The rows were dealt into folds in other ways ({each}): a row's judges in one run were trained on other "
            "rows than its judges in another. The same --folds, --seed and data give the same folds."
        )
    hashed = [(name, origin) for name, origin in zip(names, origins, strict=True) if origin.fingerprint is not None]
    groups: dict[str, list[str]] = {}
    for name, origin in hashed:
        groups.setdefault(origin.fingerprint, []).append(name)
    if len(groups) > 1:
        alike = {origin.preparation for _, origin in hashed}
        prepared = ", or only their preparation (--text_cleaning, --labels, size of the pictures), which it covers too"
        yield (
            f"The hash of the data (data_fingerprint in config.yaml) is not the same in all runs "
            f"({'; '.join(', '.join(group) for group in groups.values())}): the rows, texts or pictures differ"
            f"{'' if len(alike) == 1 and None not in alike else prepared}."
        )


def _number_folds(fold_of: Mapping[str, int], guids: Sequence[str]) -> tuple[int | None, ...]:
    """The fold of each row, numbered as they come, so that their order is no matter; None for a row of none."""
    numbers: dict[int | None, int | None] = {None: None}
    return tuple(numbers.setdefault(fold_of.get(guid), len(numbers)) for guid in guids)


def _read_preparation(run: RunFolder) -> str | None:
    """From the model's settings, of the first member in a run of folds."""
    folders = [run.path, *sorted((run.path / "members").glob("*"))]
    files = (RunFolder(folder).model_dir / "config.json" for folder in folders)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        settings = read_json(file, dict[str, Any])
    except InputError:
        return None  # the comparison needs no model
    # A setting that has its default isn't written.
    return json.dumps([settings.get(name) for name in ("picture", "text_cleaning", "id2label")], sort_keys=True)
