"""Flags of data_utils.shard; nothing heavy is imported for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass

from data_utils.console.command_line import FlagParser, flag, list_flags
from data_utils.sources.arguments import OF_TABLES, SHARD_SUFFIXES, DataArguments
from modeling.errors import InputError, check_choice

# Flags of training that mean the same here; the first of them say which rows are left out.
_CHOOSING = ("val_ratio", "split_file", "allow_leaky_split", "group_by", "on_bad_pair", "allow_data_loss")
_PARTS = ("val_data", "test_data", "train_split", "val_split")
_DATA_FLAGS = (
    *("data_dir", "data", *OF_TABLES, "train_file", "labels", "text_encoding", "max_image_pixels", *_CHOOSING),
    *("cache_dir", "preprocessing_num_workers"),
)


@dataclass(frozen=True)
class ShardArguments:
    """Flags that data_utils.shard has beside those of training. Raises `InputError` with what is allowed."""

    output_dir: str = flag(MISSING, "Folder for the shards, shards.json, split.json and quarantine.csv.")
    for_prediction: bool = flag(False, "Write every row of the list, in its order, as test-*: for --predict.")
    shard_format: str = flag("parquet", "parquet or webdataset (tar).")
    rows_per_shard: int = flag(1000, "Rows in each shard but the last of a part.")
    seed: int = flag(42, "Of the split and of the rows' order in the shards.")

    def __post_init__(self) -> None:
        check_choice("--shard_format", self.shard_format, SHARD_SUFFIXES)
        for name, least in (("rows_per_shard", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"Got --{name} {getattr(self, name)}; it must be {least} or more.")


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[ShardArguments, DataArguments]:
    """The command line (None: that of the process).

    Raises:
        InputError: a flag is unknown, has a wrong value, or would have no effect beside --for_prediction.
    """
    parser = FlagParser(ShardArguments, description="Write shards with the pictures inside, for --streaming.")
    parser.add_flags("data", [each for each in list_flags(DataArguments) if each.name in _DATA_FLAGS])
    given = parser.parse(argv)
    unused = [name for name in (*_CHOOSING, *_PARTS, "seed") if name in given]
    if given.get("for_prediction") and unused:
        raise InputError(
            f"Got --{unused[0]} {given[unused[0]]} with --for_prediction, which writes every row of the list in its "
            "order; leave one of the two out."
        )
    data = {name: given.pop(name) for name in _DATA_FLAGS if name in given}
    source = DataArguments(**data)
    source.refuse_unused()
    return ShardArguments(**given), source
