"""Large losses of a stream, found by a look at its first rows, since nobody reads all of them beforehand."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import Entry, Reason
from data_utils.sources.row_losses import Fault, LossRule
from data_utils.stream.rows import NumberedRow, RowPreparer, read_label

# A sorted list may have been cut into shards, so that the first of them isn't like the others.
_SHARDS, _ROWS_PER_SHARD = 4, 32
_TEXT_REASONS = (Reason.MISSING_TEXT, Reason.EMPTY_TEXT, Reason.UNREADABLE_TEXT)
_PICTURE_REASONS = (Reason.MISSING_IMAGE, Reason.UNREADABLE_IMAGE)


def check_first_rows(shards: ShardSet, prepare: RowPreparer, rule: LossRule) -> None:
    """Judge the first rows of some shards as a list is judged as a whole.

    Raises:
        InputError: a large loss, see `LossRule`.
        ShardError: a shard can't be read.
    """
    rows = _read_first_rows(shards)
    entries = prepare(rows)[1]
    labels = [(row.row.label, *read_label(row.row.label, prepare.labels)) for row in rows]
    found = Counter(
        str(given) if fault else prepare.labels[number] for given, number, fault in labels if given is not None
    )
    rule.check_rows(entries, len(rows), found=found, labels=prepare.labels)
    guids = [row.row.guid for row in rows]
    rule.check_files(guids, *(_pick(entries, rows, reasons) for reasons in (_TEXT_REASONS, _PICTURE_REASONS)))


def _read_first_rows(shards: ShardSet) -> list[NumberedRow]:
    step = -(-len(shards.shards) // _SHARDS)
    read = (
        (shard.name, read())
        for shard in shards.shards[::step]
        for _, read in islice(iterate_shard(shard, shards.kind), _ROWS_PER_SHARD)
    )
    return [NumberedRow(number, name, row) for number, (name, row) in enumerate(read)]


def _pick(entries: list[Entry], rows: list[NumberedRow], reasons: tuple[str, ...]) -> list[Fault | None]:
    """Of each row the fault that is among the reasons."""
    found = {entry.row: Fault(entry.reason, entry.detail) for entry in entries if entry.reason in reasons}
    return [found.get(row.place + 1) for row in rows]
