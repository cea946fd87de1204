"""Rates of one process over shards: `python -m benchmarks.stream_rate --data_dir SHARDS`.

Rows per second that are only read, and that become batches (pictures decoded to 224 px, texts tokenised), bytes a row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.setting import PICTURE
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.tokens import train_wordpiece
from data_utils.shards.read import iterate_shard, read_texts
from data_utils.shards.shard_set import ShardSet, find_shards
from data_utils.sources.arguments import DEFAULT_LABELS
from data_utils.stream.loader import PairStream
from data_utils.stream.order import StreamSettings
from data_utils.stream.rows import RowPreparer
from modeling.errors import InputError


def read_raw(shards: ShardSet) -> int:
    """Read every row, decode none; returns the bytes of pictures and texts."""
    rows = (read() for shard in shards.shards for _, read in iterate_shard(shard, shards.kind, stop=shard.rows))
    return sum(len(row.image or b"") + len((row.text or "").encode()) for row in rows)


def read_batches(shards: ShardSet) -> int:
    """Read an epoch as a training process without loader workers does; returns the number of batches."""
    tokenizer = train_wordpiece(read_texts(shards, limit=1000), vocab_size=8000, max_length=77)
    prepare = RowPreparer(
        tokenizer=tokenizer,
        max_length=77,
        picture=PICTURE,
        labels=DEFAULT_LABELS,
        text_cleaning="report",
        on_bad_pair="mask",
    )
    order = {"seed": 0, "buffer_size": 1000, "drop_last": False, "num_batches": None}
    settings = StreamSettings(batch_size=32, world_size=1, rank=0, **order)
    collator = PairCollator(tokenizer.pad_token_id, PICTURE.image_size)
    return sum(1 for _ in PairStream(shards, settings, prepare=prepare, collator=collator))


def measure(location: str, *, repeats: int = 3) -> dict[str, Any]:
    """Medians over `repeats` passes.

    Raises:
        InputError: there are no counted training shards.
    """
    shards = find_shards(location, "train")
    if shards is None or shards.num_rows is None:
        raise InputError(f"{location} has no shards of python -m data_utils.shard; write some.")
    rows, size = shards.num_rows, sum(shard.size for shard in shards.shards)

    def time_pass(read: Callable[[ShardSet], int]) -> tuple[float, float]:
        begin, core_begin = time.perf_counter(), time.process_time()
        read(shards)
        return rows / (time.perf_counter() - begin), rows / (time.process_time() - core_begin)

    ways = {"read": read_raw, "batches": read_batches}
    rates = {name: [time_pass(read) for _ in range(repeats)] for name, read in ways.items()}
    return {
        "rows": rows,
        "bytes_per_row": size / rows,
        "content_bytes_per_row": read_raw(shards) / rows,
        "rows_per_second": {name: median(rate for rate, _ in found) for name, found in rates.items()},
        # By the processor's own time: what other jobs take of the machine doesn't count.
        "rows_per_core_second": {name: median(rate for _, rate in found) for name, found in rates.items()},
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder, glob or URL of shards")
    parser.add_argument("--repeats", type=int, default=3, help="passes; the median counts")
    options = parser.parse_args()
    print(json.dumps(measure(options.data_dir, repeats=options.repeats), indent=1))


if __name__ == "__main__":
    main()
