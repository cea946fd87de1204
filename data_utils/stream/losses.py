"""Large losses of a stream, found by a look at its first rows, since nobody reads all of them beforehand."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from data_utils.shards.read import iterate_shard
from data_utils.shards.shard_set import ShardSet
from data_utils.sources.quarantine import Reason
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
    texts, pictures = (
        {entry.row: Fault(entry.reason, entry.detail) for entry in entries if entry.reason in reasons}
        for reasons in (_TEXT_REASONS, _PICTURE_REASONS)
    )
    guids, numbers = [row.row.guid for row in rows], [row.place + 1 for row in rows]
    rule.check_files(guids, list(map(texts.get, numbers)), list(map(pictures.get, numbers)))
