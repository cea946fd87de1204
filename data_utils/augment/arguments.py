"""Flags of data_utils.augment; nothing heavy is imported for them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from data_utils.console.command_line import flag
from data_utils.sources.arguments import DataArguments
from data_utils.sources.records import is_valid_guid
from modeling.errors import InputError, check_choice

MANIFEST = "augmentation.json"
# Kind of copy -> the letter in its guid, by which `data_utils.splits.groups.root_guid` finds the parent.
KINDS = {"text": "t", "image": "i"}


@dataclass
class AugmentArguments:
    """Flags of data_utils.augment. Raises `InputError` with what is allowed."""

    data_dir: str = flag(MISSING, "Folder with the list file and data/{guid}.txt with data/{guid}.jpg.")
    predictions: str | None = flag(
        None, "A run of train.py --folds, or a CSV file with guid, label, prediction and prob_ of each class."
    )
    train_file: str = flag("train.txt", "The list: a name inside --data_dir, or a path.")
    output_file: str = flag("train_augmented.txt", "Name inside --data_dir of the list with the copies in it.")
    copies: int = flag(1, "Copies of each chosen row, of each of --kinds.")
    kinds: list[str] = flag(list(KINDS), "text, image or both: which side of a copy is changed.")
    min_loss: float | None = flag(
        None, "Copy rows whose label got a loss (-ln p) of at least this, instead of the misjudged rows."
    )
    only: list[str] | None = flag(None, "Copy rows with these labels only.")
    flip: bool = flag(False, "Mirror every second changed picture, and writing in it.")
    seed: int = flag(42, "Of all changes; the same seed gives the same copies.")
    text_encoding: str | None = flag(None, "Of texts that are not UTF-8. Default: found by all of them together.")
    undo: bool = flag(False, "Take away what this program added to --data_dir.")

    def __post_init__(self) -> None:
        data = DataArguments(data_dir=self.data_dir, train_file=self.train_file, text_encoding=self.text_encoding)
        self.list_path = data.list_path()
        if self.undo:
            return
        if self.predictions is None:
            raise InputError(
                "--predictions is missing: name a run of `train.py --folds 5`, whose models had not seen the rows they "
                "judged; or take copies away with --undo."
            )
        if self.copies < 1:
            raise InputError(f"Got --copies {self.copies}; it must be 1 or more.")
        if self.min_loss is not None and not self.min_loss >= 0:
            raise InputError(f"Got --min_loss {self.min_loss}; it must be 0 or more, like 1.5.")
        for kind in self.kinds:
            check_choice("--kinds", kind, KINDS)
        if not is_valid_guid(self.output_file) or self.output_file == MANIFEST:
            raise InputError(
                f"Got --output_file {self.output_file!r}; it is a plain file name inside --data_dir, not {MANIFEST}."
            )
