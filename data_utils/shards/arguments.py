"""Flags of data_utils.shard; nothing heavy is imported for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_utils.sources.arguments import DEFAULT_LABELS, MAX_PIXELS, SHARD_SUFFIXES, DataArguments
from modeling.errors import InputError, check_choice


@dataclass
class ShardArguments:
    """Flags of data_utils.shard. Raises `InputError` with what is allowed."""

    data_dir: str = field(metadata={"help": "Folder with the list file and data/{guid}.txt with data/{guid}.jpg."})
    output_dir: str = field(metadata={"help": "Folder for the shards, shards.json, split.json and quarantine.csv."})
    train_file: str = field(default="train.txt", metadata={"help": "The list: a name inside --data_dir, or a path."})
    for_prediction: bool = field(
        default=False, metadata={"help": "Write every row of the list, in its order, as test-*: for --predict."}
    )
    shard_format: str = field(default="parquet", metadata={"help": "parquet or webdataset (tar)."})
    rows_per_shard: int = field(default=1000, metadata={"help": "Rows in each shard but the last of a part."})
    labels: list[str] = field(default_factory=lambda: list(DEFAULT_LABELS), metadata={"help": "Allowed labels."})
    val_ratio: float | None = field(
        default=None, metadata={"help": "Share of the pairs for validation, in [0, 1). Default: 0.1."}
    )
    seed: int | None = field(
        default=None, metadata={"help": "Of the split and of the rows' order in the shards. Default: 42."}
    )
    split_file: str | None = field(default=None, metadata={"help": "A split.json of an earlier run, to use again."})
    on_bad_pair: str | None = field(
        default=None, metadata={"help": "A pair with one usable side: mask, drop or error. Default: mask."}
    )
    text_encoding: str | None = field(
        default=None, metadata={"help": "Of texts that are not UTF-8. Default: found by all of them together."}
    )
    max_image_pixels: int = field(
        default=MAX_PIXELS, metadata={"help": "A picture of more pixels, that is no JPEG, is taken as unreadable."}
    )
    allow_data_loss: bool = field(
        default=False, metadata={"help": "Write shards although much of the data is lost, see train.py --help."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Folder for what is found out about the files."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes. Default: all cores."})

    def __post_init__(self) -> None:
        check_choice("--shard_format", self.shard_format, SHARD_SUFFIXES)
        if self.rows_per_shard < 1:
            raise InputError(f"Got --rows_per_shard {self.rows_per_shard}; it must be 1 or more.")
        if self.for_prediction:
            self._refuse_unused()
        defaults = {"val_ratio": 0.1, "seed": 42, "on_bad_pair": "mask"}
        for name in (name for name in defaults if getattr(self, name) is None):
            setattr(self, name, defaults[name])
        if self.seed < 0:
            raise InputError(f"Got --seed {self.seed}; it must be 0 or more.")
        self.data = DataArguments(
            data_dir=self.data_dir,
            train_file=self.train_file,
            labels=self.labels,
            val_ratio=self.val_ratio,
            split_file=self.split_file,
            on_bad_pair=self.on_bad_pair,
            max_image_pixels=self.max_image_pixels,
            text_encoding=self.text_encoding,
            allow_data_loss=self.allow_data_loss,
            cache_dir=self.cache_dir,
            preprocessing_num_workers=self.preprocessing_num_workers,
        )

    def _refuse_unused(self) -> None:
        """Refuse flags that say which rows are left out, in what order, where all of them are written as listed."""
        for name in ("split_file", "val_ratio", "seed", "on_bad_pair", "allow_data_loss"):
            if getattr(self, name) not in (None, False):
                raise InputError(
                    f"Got --{name} {getattr(self, name)} with --for_prediction, which writes every row of the list in "
                    "its order; leave one of the two out."
                )
