"""Rows of shards to rows for the collator: texts cleaned and tokenised, pictures decoded, faults noted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.pairs import choose_action
from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_file import ShardRow
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.label_forms import find_label
from data_utils.sources.quarantine import Action, Entry, Fault, Reason
from data_utils.sources.row_losses import LossRule
from modeling.choices import MAX_PIXELS
from modeling.file_kinds import find_pointer
from modeling.pictures import PictureError, PictureSettings, decode_picture
from modeling.text import clean_text, tokenize_batch

_LOOKED_AT = 100  # letters of a text, which may be a pointer to it
# Of which the first rows are judged: a sorted list may have been cut into shards, so that the first isn't like others.
_SHARDS, _ROWS_PER_SHARD = 4, 32
_PASS_STRIDE = 998_244_353
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_MOST_DIGITS = 10  # of a class number; Python refuses to make thousands of them a number


@dataclass(frozen=True)
class NumberedRow:
    """A row of a shard, with its number in the whole part, the shard's name, and how often the part was gone through.

    By the number the quarantine knows it; as row_index it has another one in each pass: to what draws by that, an
    endless stream is one epoch.
    """

    place: int
    shard: str
    row: ShardRow
    turn: int = 0

    def absent(self) -> dict[str, Any]:
        """What `RowPreparer` makes of a row that counts nothing, without tokens."""
        nothing = {"text": "", "text_present": False, "image": None, "image_present": False, "label": NO_LABEL_ID}
        return {"guid": self.row.guid, "row_index": self.place + self.turn * _PASS_STRIDE, **nothing}


@dataclass(frozen=True)
class RowPreparer:
    """Does in a worker, for a batch, what `load_pairs` and `tokenize_pairs` do for a whole list; settings as there.

    A row that training cannot use (`--on_bad_pair drop`, both modalities faulty, no label) keeps its place in the batch
    with both modalities absent and without a label: it has no part in the loss, and every batch has the planned size.
    A prediction (`for_prediction`) needs no label, and leaves no row out.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    picture: PictureSettings
    labels: Sequence[str]
    text_cleaning: str
    on_bad_pair: str
    max_image_pixels: int = MAX_PIXELS
    for_prediction: bool = False

    def __call__(self, rows: Sequence[NumberedRow]) -> tuple[list[dict[str, Any]], list[Entry]]:
        """Rows with guid, text (cleaned), text_present, image (uint8 bytes of (3, H, W) or None), image_present, label,
        row_index and input_ids; and what was wrong with them."""
        entries: list[Entry] = []
        return self._add_tokens([self._prepare(row, entries) for row in rows]), entries

    def fill(self) -> list[dict[str, Any]]:
        """One row that counts nothing, for a rank whose rows end a batch before the others' do."""
        return self._add_tokens([NumberedRow(0, "", ShardRow("", None, None, None)).absent()])

    def _add_tokens(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        tokens = tokenize_batch([row["text"] for row in rows], self.tokenizer, self.max_length)["input_ids"]
        return [row | {"input_ids": input_ids} for row, input_ids in zip(rows, tokens, strict=True)]

    def _prepare(self, numbered: NumberedRow, entries: list[Entry]) -> dict[str, Any]:
        row = numbered.row
        label, label_fault = read_label(row.label, self.labels)
        text, text_fault = self._read_text(row.text)
        image, image_fault = self._read_image(row.image)
        faults = [fault for fault in (text_fault, image_fault) if fault]
        action = choose_action(both=len(faults) == 2, on_bad_pair=self.on_bad_pair, for_prediction=self.for_prediction)
        found = [(fault, action) for fault in faults]
        if label_fault and not (self.for_prediction and label_fault.reason == Reason.NO_LABEL):
            found.insert(0, (label_fault, Action.UNLABELLED if self.for_prediction else Action.DROPPED))
        for fault, done in found:
            detail = f"{numbered.shard}: {fault.detail}"
            entries.append(Entry(numbered.place + 1, row.guid, fault.reason, done, detail))
        if not self.for_prediction and Action.DROPPED in (done for _, done in found):
            return numbered.absent()
        present = {"text_present": text_fault is None, "image_present": image_fault is None}
        return numbered.absent() | present | {"text": text, "image": image, "label": label}

    def _read_text(self, raw: str | None) -> tuple[str, Fault | None]:
        if raw is None:
            return "", Fault(Reason.MISSING_TEXT, "the row has no text")
        if pointer := find_pointer(raw[:_LOOKED_AT].encode("utf-8", "surrogatepass")):
            return "", Fault(Reason.UNREADABLE_TEXT, pointer)
        if text := clean_text(raw, self.text_cleaning):
            return text, None
        blank = "holds nothing but URLs and @names" if clean_text(raw, "none") else "is blank"
        return "", Fault(Reason.EMPTY_TEXT, f"the text {blank}")

    def _read_image(self, source: bytes | None) -> tuple[bytes | None, Fault | None]:
        if source is None:
            return None, Fault(Reason.MISSING_IMAGE, "the row has no picture's bytes")
        try:
            return decode_picture(source, self.picture, self.max_image_pixels).tobytes(), None
        except PictureError as error:
            return None, Fault(Reason.UNREADABLE_IMAGE, str(error))


def read_label(label: str | float | None, labels: Sequence[str]) -> tuple[int, Fault | None]:
    """Class number of a label: by its name, else it is the number, where no name is one; -100 with a fault for others.

    Numbers may be floats: a column of integers becomes one as soon as one of them is missing (then nan) in pandas.
    """
    if isinstance(label, float) and (label.is_integer() or math.isnan(label)):
        label = None if math.isnan(label) else int(label)
    name = "" if label is None else str(label).strip()
    if name.casefold() in ("", "null"):
        return NO_LABEL_ID, Fault(Reason.NO_LABEL, "a training row needs a label")
    if (known := find_label(name, labels)) is not None:
        return labels.index(known), None
    are_numbers = any(map(_NUMBER.fullmatch, labels))  # 2 may not be the third of the classes -1, 0 and 1
    if not are_numbers and name.isdecimal() and len(name) < _MOST_DIGITS and int(name) < len(labels):
        return int(name), None
    numbers = "" if are_numbers else ", or their numbers from 0"
    return NO_LABEL_ID, Fault(Reason.UNKNOWN_LABEL, f"got {label!r}; allowed: {', '.join(labels)}{numbers}")


def check_first_rows(shards: ShardSet, prepare: RowPreparer, rule: LossRule) -> None:
    """Judge the first rows of some shards as a list is judged as a whole: nobody reads all of them beforehand.

    Raises:
        InputError: a large loss, see `LossRule`.
        ShardError: a shard can't be read.
    """
    read = (
        (shard.name, read())
        for shard in shards.shards[:: -(-len(shards.shards) // _SHARDS)]
        for _, read in islice(iterate_shard(shard, shards.kind), _ROWS_PER_SHARD)
    )
    rows = [NumberedRow(number, name, row) for number, (name, row) in enumerate(read)]
    _, entries = prepare(rows)
    labels: Counter[str] = Counter()
    for given in (row.row.label for row in rows if row.row.label is not None):
        number, fault = read_label(given, prepare.labels)
        labels[str(given) if fault else prepare.labels[number]] += 1
    rule.check_rows(entries, len(rows), found=labels, labels=prepare.labels)
    faults: dict[str, dict[int, Fault]] = {"text": {}, "image": {}}
    for entry in entries:  # a reason names its side last, as missing_text
        if (side := entry.reason.rpartition("_")[2]) in faults:
            faults[side][entry.row] = Fault(entry.reason, entry.detail)
    texts, pictures = ([faults[side].get(row.place + 1) for row in rows] for side in faults)
    rule.check_files([row.row.guid for row in rows], texts, pictures)
