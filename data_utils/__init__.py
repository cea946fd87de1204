"""Data: list and files -> cached pairs -> splits -> batches, with a ledger of what was wrong.

A name is imported when it is first used: the flags need none of the libraries that read data.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "DataArguments": "arguments",
    "InputError": "errors",
    "Ledger": "ledger",
    "PairCollator": "collator",
    "Pairs": "pairs",
    "PictureError": "pictures",
    "PictureSettings": "pictures",
    "Split": "split_file",
    "add_row_index": "pairs",
    "check_no_leak": "splits",
    "decode_picture": "pictures",
    "group_ids": "splits",
    "load_pairs": "pairs",
    "load_split": "split_file",
    "make_split": "split_draw",
    "save_split": "split_file",
    "split_indices": "splits",
    "split_pairs": "splits",
    "tokenize_pairs": "tokens",
    "train_wordpiece": "tokens",
}


def __getattr__(name: str) -> Any:
    """The name, from its module; Python calls this for what isn't here yet."""
    if name not in _HOMES:
        raise AttributeError(f"data_utils has no {name}")
    return getattr(import_module(f"data_utils.{_HOMES[name]}"), name)
