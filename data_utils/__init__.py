"""Data: list and files -> cached pairs -> splits -> batches, with a ledger of what was wrong."""

from data_utils.arguments import DataArguments
from data_utils.collator import PairCollator
from data_utils.errors import InputError
from data_utils.ledger import Ledger
from data_utils.pairs import Pairs, add_row_index, load_pairs
from data_utils.pictures import PictureError, PictureSettings, decode_picture
from data_utils.split_draw import make_split
from data_utils.split_file import Split, load_split, save_split
from data_utils.splits import check_no_leak, group_ids, split_indices, split_pairs
from data_utils.tokens import tokenize_pairs, train_wordpiece

__all__ = [
    "DataArguments",
    "InputError",
    "Ledger",
    "PairCollator",
    "Pairs",
    "PictureError",
    "PictureSettings",
    "Split",
    "add_row_index",
    "check_no_leak",
    "decode_picture",
    "group_ids",
    "load_pairs",
    "load_split",
    "make_split",
    "save_split",
    "split_indices",
    "split_pairs",
    "tokenize_pairs",
    "train_wordpiece",
]
