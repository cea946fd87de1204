"""Flags of data_utils.check; nothing heavy is imported for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Literal

from data_utils.console.command_line import FlagParser, flag, list_flags
from data_utils.quality.problems import PROBLEMS
from data_utils.sources.arguments import OF_TABLES, DataArguments
from modeling.errors import InputError, check_choice

# Flags of training that mean the same here.
_DATA_FLAGS = (
    *("data_dir", "data", *OF_TABLES, "train_file", "labels", "task", "split_file", "text_encoding"),
    *("image_resize_mode", "image_size", "max_image_pixels", "cache_dir", "overwrite_cache"),
    "preprocessing_num_workers",
)


@dataclass(frozen=True)
class CheckArguments:
    """Flags that data_utils.check has beside those of training. Raises `InputError` with what is allowed."""

    output_dir: str = flag(MISSING, "Folder for check.html, check.json and the CSV files.")
    predictions: str | None = flag(
        None, "A run of train.py --folds, or a file of its predictions, by which labels are judged; without it a probe."
    )
    labels_by: Literal["probe", "none"] = flag(
        "probe", "none: leave out labels that may be wrong, which take cleanlab."
    )
    fail_on: list[str] | None = flag(
        None,
        f"What ends with exit code 1, of {', '.join(PROBLEMS)}; also with how many are allowed, or, below 1, which "
        "share of the rows: leaks labels=20 missing=0.01.",
    )
    page_rows: int = flag(200, "Rows of each table in check.html; the CSV files have all.")
    seed: int = flag(42, "Of the probe's folds.")

    def __post_init__(self) -> None:
        for name, least in (("page_rows", 1), ("seed", 0)):
            if not least <= getattr(self, name) < 2**32:
                raise InputError(f"Got --{name} {getattr(self, name)}; it must be {least} or more.")
        if self.predictions is not None and self.labels_by == "none":
            raise InputError("Got --predictions and --labels_by none, by which they are not read; leave one out.")
        self.limits()

    def limits(self) -> dict[str, float]:
        """How many of each problem of --fail_on are allowed; a share of the rows below 1."""
        found = {}
        for word in filter(None, ",".join(self.fail_on or ()).split(",")):
            name, sign, limit = word.partition("=")
            check_choice("--fail_on", name, PROBLEMS)
            try:
                found[name] = float(limit) if sign else 0.0
            except ValueError:
                found[name] = math.nan
            if not 0 <= found[name] < math.inf:
                raise InputError(f"Got --fail_on {word}; behind = belongs a number of 0 or more, like {name}=10.")
        return found


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[CheckArguments, DataArguments]:
    """The command line (None: that of the process); `InputError` for a flag that is unknown or has a wrong value."""
    parser = FlagParser(CheckArguments, description="Check data before a training.")
    parser.add_flags("data", [each for each in list_flags(DataArguments) if each.name in _DATA_FLAGS])
    given = parser.parse(argv)
    # Every row that can be read is checked, whatever else is wrong with the data.
    data = {name: given.pop(name) for name in _DATA_FLAGS if name in given} | {"allow_data_loss": True}
    source = DataArguments(**data)
    source.refuse_unused()
    return CheckArguments(**given), source
