"""A split: the guids of its parts, and its file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from data_utils.system.files import write_text
from data_utils.system.schema import Within, read_json
from modeling.errors import InputError

logger = logging.getLogger(__name__)

PART_TITLES = {"train": "training", "val": "validation", "test": "test"}


class SplitFile(TypedDict):
    """A split as JSON."""

    train: list[str]
    val: list[str]
    test: NotRequired[list[str]]
    seed: NotRequired[Annotated[int, Within(-(2**63), 2**64)] | None]
    val_ratio: NotRequired[float | None]
    sha256: NotRequired[str]


@dataclass(frozen=True)
class Split:
    """The guids of the parts, sorted, and how they were drawn (None where a file written by hand doesn't say).

    What is trained is chosen (best epoch, early stopping) by `val`; `test`, which may be empty, chooses nothing and is
    judged once, at the end.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    seed: int | None
    val_ratio: float | None
    test: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The guids by the part's name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def guids(self) -> tuple[str, ...]:
        """All that are in a part."""
        return self.train + self.val + self.test

    @property
    def sha256(self) -> str:
        """Hash of the content; stored in the file, so that a changed file is noticed."""
        content = [sorted(self.train), sorted(self.val), self.seed, self.val_ratio]
        return hashlib.sha256(json.dumps(content + [sorted(self.test)] * bool(self.test)).encode()).hexdigest()


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON, with its hash; `InputError` where the file cannot be written."""
    parts = {part: guids for part, guids in split.parts.items() if guids or part != "test"}
    content = {"seed": split.seed, "val_ratio": split.val_ratio, "sha256": split.sha256, **parts}
    write_text(Path(path), json.dumps(content, indent=1) + "\n")


def load_split(path: Path, *, known_guids: Collection[str] | None = None) -> Split:
    """Read a split of an earlier run.

    Args:
        path: a split.json.
        known_guids: every guid of the list (`Pairs.known_guids`), also of rows that were left out.

    Raises:
        InputError: not readable, not JSON, a part missing, a guid in two parts, or a guid that is not in the list.
    """
    try:
        remedy = "give a split.json of an earlier run (--split_file)"
        content: SplitFile = read_json(Path(path), SplitFile, remedy=remedy)
    except FileNotFoundError as error:
        raise InputError(f"the split file {path} cannot be read ({error.strerror}); check --split_file.") from error
    train, val, test = (tuple(guids) for guids in (content["train"], content["val"], content.get("test", [])))
    split = Split(train, val, content.get("seed"), content.get("val_ratio"), test)
    repeated = sorted(guid for guid, count in Counter(split.guids).items() if count > 1)
    if repeated:
        crossing = [guid for guid in repeated if sum(guid in part for part in split.parts.values()) > 1]
        where = f"{len(crossing)} guids in two parts" if crossing else f"{len(repeated)} guids more than once"
        raise InputError(f"the split file {path} has {where}, for example '{(crossing or repeated)[0]}'; mend it.")
    if content.get("sha256", split.sha256) != split.sha256:
        logger.warning("the split file %s was changed after it was written: it is another split than its run's", path)
    unknown = [] if known_guids is None else [guid for guid in split.guids if guid not in known_guids]
    if unknown:
        raise InputError(
            f"{len(unknown)} guids of the split file {path} are not in the list, for example '{unknown[0]}'; "
            "it belongs to other data: check --split_file, --data, --data_dir and --train_file."
        )
    return split
