"""The one way from records and their files to a table of pairs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from datasets.table import InMemoryTable, concat_tables

from data_utils.prepare.columns import WEIGHT
from data_utils.prepare.loading import load_pictures, load_texts
from data_utils.prepare.pair_files import PairSource, Pictures
from data_utils.sources.arguments import DataArguments
from data_utils.sources.label_forms import encode_labels
from data_utils.sources.quarantine import Action, Entry, Fault, Quarantine
from data_utils.sources.records import Rows, is_valid_guid, judge_rows
from data_utils.sources.row_losses import LossRule
from modeling.errors import InputError
from modeling.pictures import PictureSettings

_HASHED = ["guid", "label", "text", "text_present", "image_present", "image_key"]
_SHOWN = 3
Faults = Sequence[Fault | None]


@dataclass(frozen=True)
class Pairs:
    """The pairs of one list.

    Attributes:
        dataset: one row per kept pair, in the list's order. Columns: guid (str), label (by the task, see
            `columns`), text (cleaned, "" when absent), text_present, image (uint8 bytes of shape
            (3, image_size, image_size), of several pictures one behind the other, null when absent), image_present,
            text_key and image_key (hashes by which equal texts and equal picture files are found; null without one).
            Memory-mapped.
        parts: of each row the part (train, val or test) that the data declare for it, or None.
        declared: the parts that they declare.
        pictures: of each row the file, or the cell of a table, that its picture is read from.
        quarantine: every fault of every row, and what was done.
        fingerprint: hash of the rows' content and of the settings; the same on every machine with the same data.
        text_encoding: that was taken for texts whose own isn't certain; None where there are none.
    """

    dataset: Dataset
    parts: list[str | None]
    declared: Collection[str]
    pictures: Pictures
    quarantine: Quarantine
    fingerprint: str
    text_encoding: str | None

    @property
    def known_guids(self) -> set[str]:
        """Every guid the list names, also of the rows that were left out."""
        return {*self.dataset.select_columns(["guid"])[:]["guid"], *(entry.guid for entry in self.quarantine)}


def load_pairs(
    source: PairSource,
    *,
    data: DataArguments,
    picture: PictureSettings,
    for_prediction: bool = False,
    needs: Collection[str] = ("text", "image"),
) -> Pairs:
    """Read the rows of a source, its texts and its pictures, and prepare them; see `prepare_records`.

    Args:
        source: see `open_source`.
        needs: of "text" and "image" those that the head reads.

    Raises:
        InputError: the source can't be read, nothing is usable in it, a large loss, `--on_bad_pair error` and a fault,
            or a cache folder that cannot be written.
    """
    if not for_prediction and (lacking := [side for side in needs if side not in source.sides]):
        raise InputError(
            f"{source.name} has no column of {'pictures' if lacking[0] == 'image' else 'texts'}, which the fusion head "
            f"reads; name one with --{lacking[0]}_column, or take --fusion {source.sides[0]}_only."
        )
    quarantine = Quarantine()
    rule = LossRule(source.name, needs, stops=not (data.allow_data_loss or for_prediction))
    records = judge_rows(
        source.rows(data.labels, for_prediction=for_prediction),
        source.name,
        labels=data.labels,
        quarantine=quarantine,
        for_prediction=for_prediction,
        has_files=source.has_files,
        task=data.task,
    )
    if data.on_bad_pair != "error":
        num_rows = len(records) + (0 if for_prediction else len(quarantine))
        rule.check_rows(quarantine.entries, num_rows, found=quarantine.labels, labels=data.labels)
    return prepare_records(
        records,
        source,
        data=data,
        picture=picture,
        for_prediction=for_prediction,
        quarantine=quarantine,
        rule=rule,
    )


def prepare_records(
    records: Rows,
    source: PairSource,
    *,
    data: DataArguments,
    picture: PictureSettings,
    for_prediction: bool,
    quarantine: Quarantine,
    rule: LossRule,
) -> Pairs:
    """Find the files of records, clean every text and decode every picture once, ever, into a cache.

    Training keeps the rows with at least one usable modality. A prediction keeps every row, in order, whatever is wrong
    with it; then both modalities may be absent.

    Args:
        records: usable ones of `source`, which knows their texts and pictures.
        quarantine: takes the faults of their files.
        rule: judges large losses.
    """
    text_files, picture_files = source.locate(records)
    pictures = load_pictures(records.guids, picture_files, picture, data, source.read_cell)
    texts = load_texts(records.guids, text_files, data)
    text_faults, image_faults = (
        [
            fault and source.explain(guid, fault)
            for guid, fault in zip(records.guids, _read_faults(table, side), strict=True)
        ]
        for table, side in ((texts, "text"), (pictures, "image"))
    )
    sides = {"text": text_faults, "image": image_faults}
    faults = list(zip(*(sides[side] for side in source.sides), strict=True))
    kept = _choose_kept(records, source, faults, quarantine, data.on_bad_pair, for_prediction)
    if data.on_bad_pair == "error":
        _refuse_faults(rule.source, quarantine.entries)
    rule.check_files(records.guids, text_faults, image_faults)
    if not any(kept):
        _refuse_empty(source, quarantine)
    _note_files(source, records, texts, quarantine)
    rows = _row_columns(records, text_faults, image_faults, data)
    # Joined as tables: a data set describes and hashes each piece anew at every step.
    columns = [texts.data.select(["text", "text_key"]), pictures.data.select(["image", "image_key"])]
    table = concat_tables([rows, *columns], axis=1)
    settings = {"labels": data.labels, "text_cleaning": data.text_cleaning, "picture": picture.to_dict()}
    fingerprint = _fingerprint(table.table, np.array(kept), settings)
    dataset, chosen = Dataset(table, fingerprint=fingerprint), texts.data["chosen_encoding"][0].as_py()
    parts, files = list(compress(records.parts, kept)), list(compress(picture_files, kept))
    dataset = dataset if all(kept) else dataset.select(np.flatnonzero(kept))
    return Pairs(dataset, parts, source.parts, files, quarantine, fingerprint, chosen)


def _choose_kept(
    records: Rows,
    source: PairSource,
    faults: Sequence[Faults],
    quarantine: Quarantine,
    on_bad_pair: str,
    for_prediction: bool,
) -> list[bool]:
    """Which records are kept, given the fault or None of each side that the data have; the quarantine takes all."""
    kept = []
    for number, guid, sides in zip(records.numbers, records.guids, faults, strict=True):
        found = [fault for fault in sides if fault]
        is_empty = len(found) == len(sides)
        action = choose_action(both=is_empty, on_bad_pair=on_bad_pair, for_prediction=for_prediction)
        is_known = bool(found) and source.has_files and not is_valid_guid(guid)  # it is in the quarantine already
        for fault in () if is_known else found:
            quarantine.add(number, guid, reason=fault.reason, action=action, detail=str(fault))
        kept.append(not found or action != Action.DROPPED)
    return kept


def choose_action(*, both: bool, on_bad_pair: str, for_prediction: bool) -> Action:
    """What is done with a pair whose text or picture, or both of them, can't be used."""
    if for_prediction:
        if both:
            return Action.BOTH_MASKED
        return Action.MASKED_NOT_DROPPED if on_bad_pair == "drop" else Action.MASKED
    return Action.DROPPED if both or on_bad_pair == "drop" else Action.MASKED


def _read_faults(table: Dataset, side: str) -> list[Fault | None]:
    """What is wrong with the texts or pictures of a cache; None where one is usable."""
    reasons, details = _column(table, f"{side}_reason"), _column(table, f"{side}_detail")
    return [reason and Fault(reason, detail) for reason, detail in zip(reasons, details, strict=True)]


def _column(dataset: Dataset, name: str) -> list[Any]:
    """One column as a list, straight from the Arrow table: the pictures beside it are not touched."""
    return dataset.data.column(name).to_pylist()


def _row_columns(records: Rows, texts: Faults, pictures: Faults, data: DataArguments) -> InMemoryTable:
    labels = encode_labels(records.labels, data.labels, data.task)
    columns = {
        "guid": pa.array(records.guids, pa.string()),
        "label": pa.array(labels if labels.ndim == 1 else list(labels)),
        "text_present": pa.array([fault is None for fault in texts]),
        "image_present": pa.array([fault is None for fault in pictures]),
    }
    if any(weight is not None for weight in records.weights):
        columns[WEIGHT] = pa.array(records.weights, pa.float32())
    return InMemoryTable(pa.table(columns))


def _refuse_faults(source: str, entries: Sequence[Entry]) -> None:
    """`--on_bad_pair error`: the first faults and the count of all."""
    entries = [entry for entry in entries if entry.action != Action.REPEATED]
    if entries:
        first = "; ".join(f"row {entry.row} ({entry.guid!r}): {entry.reason}" for entry in entries[:_SHOWN])
        more = f"; and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
        raise InputError(
            f"{source} has {len(entries)} faults and --on_bad_pair is error: {first}{more}. "
            "Mend them, or use --on_bad_pair mask (or drop)."
        )


def _refuse_empty(source: PairSource, quarantine: Quarantine) -> None:
    counts = Counter(entry.reason for entry in quarantine)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    first = next(iter(quarantine))
    raise InputError(
        f"no pair of {source.name} in {source.path} can be trained on ({why}); row {first.row}: {first.detail}. Check "
        "--data_dir (of a table --image_dir), and --on_bad_pair if it is drop."
    )


def _note_files(source: PairSource, records: Rows, texts: Dataset, quarantine: Quarantine) -> None:
    """Tell of files that were passed over, and of texts that aren't UTF-8."""
    if source.passed_over:
        bad, good = source.passed_over[0]
        quarantine.notes.append(
            f"{len(source.passed_over)} files were passed over for others of their guid, like {bad} for {good}"
        )
    for row, encoding in enumerate(_column(texts, "text_encoding")):
        if encoding not in (None, "utf-8"):
            quarantine.add_decoded(records.guids[row], encoding, texts.data["text"][row].as_py())


def _fingerprint(table: pa.Table, kept: np.ndarray, settings: dict[str, Any]) -> str:
    """Hash of the settings and of the rows that are kept; a picture's key stands for its pixels."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    names = [*_HASHED, *({WEIGHT} & set(table.column_names))]
    columns, rows = table.select(names), np.flatnonzero(kept)
    for start in range(0, len(rows), 1000):
        first, last = rows[start], rows[start : start + 1000][-1]
        batch = columns.slice(first, last + 1 - first).filter(pa.array(kept[first : last + 1]))
        digest.update(json.dumps(list(batch.to_pydict().values())).encode())
    return digest.hexdigest()


def join_columns(dataset: Dataset, columns: Dataset) -> Dataset:
    """Set columns beside *all* stored rows of a dataset, also those a `select` left out.

    `Dataset.add_column` copies every picture of a dataset that was selected from; this copies nothing.
    `columns` has as many rows as `dataset.data`.
    """
    indices = dataset._indices
    stored = Dataset(dataset.data, info=dataset.info.copy(), fingerprint=dataset._fingerprint)
    taken = [name for name in columns.column_names if name in stored.column_names]
    joined = concatenate_datasets([stored.remove_columns(taken), columns], axis=1)
    # `datasets` computes with the first number of a range, and of unsigned numbers and its own come fractions.
    return joined if indices is None else joined.select(indices.column(0).to_numpy().astype(np.int64))


def add_row_index(dataset: Dataset) -> Dataset:
    """Add the column `row_index` (int64): the row's number in this dataset, from 0.

    Raises:
        ValueError: a row was selected twice, so that it would need two numbers.
    """
    numbers = np.arange(len(dataset), dtype=np.int64)
    if dataset._indices is not None:
        indices = dataset._indices.column(0).to_numpy()
        if len(np.unique(indices)) != len(indices):
            raise ValueError("a row stands twice in this dataset, so its row_index would be ambiguous")
        stored = np.full(len(dataset.data), -1, dtype=np.int64)
        stored[indices] = numbers
        numbers = stored
    return join_columns(dataset, Dataset(pa.table({"row_index": numbers})))
