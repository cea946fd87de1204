"""What compared runs were made of, as far as their folders say: the data and the folds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_utils.splits.split_file import load_split
from run_files.run_folder import RunFolder


@dataclass(frozen=True)
class Origin:
    """Of a run; None stands for what its folder doesn't say.

    Attributes:
        fingerprint: hash of the data and of their preparation.
        fold_of: {guid: fold that held it out}.
        seed: by which the folds were drawn.
    """

    fingerprint: str | None = None
    fold_of: Mapping[str, int] | None = None
    seed: int | None = None

    def number_folds(self, guids: Sequence[str]) -> tuple[int | None, ...]:
        """The fold of each row, numbered as they come, so that their order is no matter; None for a row of none."""
        numbers: dict[int | None, int | None] = {None: None}
        return tuple(numbers.setdefault((self.fold_of or {}).get(guid), len(numbers)) for guid in guids)


def read_origin(folder: Path) -> Origin:
    """Of a folder of train.py or of baselines; of another one nothing is known.

    Raises:
        InputError: a split of the folder is damaged.
    """
    run = RunFolder(folder)
    if not run.is_run():
        return Origin()
    sections = run.load_arguments()
    splits = sorted(run.fold_split_file(0).parent.glob("fold-*.json"))
    fold_of = {guid: number for number, path in enumerate(splits) for guid in load_split(path).test}
    fingerprint = sections["environment"].get("data_fingerprint")
    return Origin(fingerprint, fold_of or None, sections["training"].get("seed"))


def remark_on_origins(origins: Mapping[str, Origin], guids: Sequence[str]) -> Iterable[str]:
    """Sentences on what differs between runs, by their names, beside their models; `guids` are the compared rows."""
    known = {name: origin for name, origin in origins.items() if origin.fold_of is not None}
    if len({origin.number_folds(guids) for origin in known.values()}) > 1:
        each = "; ".join(
            f"{name} {len(set(origin.fold_of.values()))} folds of seed {origin.seed}" for name, origin in known.items()
        )
        yield (
            f"The rows were dealt into folds in other ways ({each}): a row's judges in one run were trained on other "
            "rows than its judges in another. The same --folds, --seed and data give the same folds."
        )
    groups: dict[str, list[str]] = {}
    for name, origin in origins.items():
        if origin.fingerprint is not None:
            groups.setdefault(origin.fingerprint, []).append(name)
    if len(groups) > 1:
        yield (
            f"The hash of the data (data_fingerprint in config.yaml) is not the same in all runs "
            f"({'; '.join(map(', '.join, groups.values()))}): the rows, texts or pictures differ, or only their "
            "preparation (--text_cleaning, --labels, size of the pictures), which it covers too."
        )
