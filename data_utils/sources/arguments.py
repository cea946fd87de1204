"""Where the data lie and how they are prepared: the `data` group of the command line."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data_utils.console.command_line import flag
from data_utils.sources.encodings import check_encoding
from data_utils.sources.label_forms import BETWEEN, VALUE
from data_utils.system.home import count_cores
from modeling.choices import MAX_PIXELS, RESIZE_MODES
from modeling.errors import InputError, check_choice
from modeling.text import CLEANING_MODES

logger = logging.getLogger(__name__)
DEFAULT_DIRS = ("data/project5", "data")
BAD_PAIR_MODES = ("mask", "drop", "error")
# Flags about tables, which need --data.
OF_TABLES = (
    *("val_data", "test_data", "train_split", "val_split", "test_split", "image_dir", "allow_urls"),
    *("text_column", "image_column", "label_column", "id_column", "weight_column"),
)
# Flags that a stream has no use for, and what to do instead.
UNSTREAMED = {
    "data": "name the shards by --data_dir",
    "max_train_samples": "take --max_steps for a quick trial",
    "split_file": "pass it to python -m data_utils.shard, which splits",
    "allow_leaky_split": "pass it to python -m data_utils.shard, which splits",
    "group_by": "pass it to python -m data_utils.shard, which splits",
    "train_file": "name the shards by --data_dir, which takes a glob",
}
# What shards are written and read as, and how their names end.
SHARD_SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}
LONGEST_LABEL = 1000  # letters
DEFAULT_LABELS = ("negative", "neutral", "positive")

# Flags that take a whole number of at least 1.
COUNTS = (
    *("image_size", "max_image_pixels", "max_length", "max_train_samples", "max_eval_samples"),
    *("preprocessing_num_workers", "shuffle_buffer_size"),
)


@dataclass(frozen=True)
class DataArguments:
    """Data options. Checked when built; raises `InputError` with what is allowed."""

    group: ClassVar[str] = "data"

    data_dir: str = flag(
        None,
        "Folder of the list file and data/{guid}.txt with data/{guid}.jpg; with --streaming a folder, glob or URL of "
        f"shards. Default: {' or '.join(DEFAULT_DIRS)}, where the data lie there.",
    )
    data: list[str] | None = flag(
        None,
        "The rows as you have them: .csv, .tsv, .json, .jsonl, .parquet or .arrow (several, globs, .gz, URLs), a saved "
        "data set, an image folder, a hub data set (user/name[:config]), MVSA's folder; or the folder of --data_dir.",
    )
    val_data: list[str] | None = flag(None, "Rows for validation in a file of their own, beside --data.")
    test_data: list[str] | None = flag(None, "Rows that are judged once, at the end, in a file of their own.")
    train_split: str | None = flag(None, "Of --data, where it has splits. Default: train, or the only one.")
    val_split: str | None = flag(
        None, "Split of --data for validation; none: draw one. Default: validation, valid, val or dev."
    )
    test_split: str | None = flag(
        None, "Split of --data that is judged once, at the end; none: leave it out. Default: test, where it has labels."
    )
    text_column: list[str] | None = flag(
        None, "Column of the texts; several are joined with the tokenizer's separator. Default: by usual names."
    )
    image_column: str | None = flag(
        None,
        "Column of the pictures: paths, bytes, base64, datasets' Image, URLs, or lists of these. Default: by names.",
    )
    label_column: list[str] | None = flag(
        None, "Column of the labels; for multi_label also several, one per label, of 0 and 1. Default: by usual names."
    )
    id_column: str | None = flag(None, "Column of the rows' names. Default: by usual names, else the rows' numbers.")
    weight_column: str | None = flag(None, "Column of numbers by which the rows' losses are weighted in training.")
    image_dir: str | None = flag(None, "Where relative paths of pictures begin. Default: the folder of the file.")
    allow_urls: bool = flag(False, "Fetch pictures that are given as http(s) URLs, once, into --cache_dir.")
    task: Literal["single_label", "multi_label", "regression"] = flag(
        "single_label", "single_label: one class per row; multi_label: any number of labels; regression: a number."
    )
    streaming: bool = flag(
        False,
        "Read train-*.parquet or .tar (and validation-*) from --data_dir while training, as "
        "`python -m data_utils.shard` writes them: nothing is prepared, and memory stays as it is.",
    )
    shuffle_buffer_size: int = flag(1000, "With --streaming, rows in each worker from which the next one is drawn.")
    train_file: str = flag(
        "train.txt", "List of labelled pairs (lines of guid,tag): a name inside --data_dir, or a path."
    )
    labels: list[str] = flag(
        None,
        "Allowed labels; their order gives the class numbers. Default: those of the training data, in the order that "
        f"the data declare, else sorted; of shards that declare none {' '.join(DEFAULT_LABELS)}.",
    )
    val_ratio: float = flag(0.1, "Share of the pairs kept for validation, in [0, 1); 0 trains on all of them.")
    split_file: str | None = flag(None, "A split.json of an earlier run, to reuse its training and validation parts.")
    allow_leaky_split: bool = flag(
        False, "Accept a --split_file in which equal texts, pictures or copies stand in both parts."
    )
    group_by: Literal["equal", "near"] = flag(
        "equal",
        "Rows that no split and no fold parts: equal: of an equal text or picture; near: of nearly the same too.",
    )
    text_cleaning: str = flag(
        "report", "report: URLs and @names removed; tweet: URL becomes http, @name becomes @user; none: text as is."
    )
    text_encoding: str | None = flag(
        None, "Encoding of texts that are not UTF-8, like cp1252. Default: the one that suits all of them best."
    )
    on_bad_pair: str = flag(
        "mask",
        "A pair whose text or picture can't be used: mask takes the other alone, drop leaves it out, error stops.",
    )
    allow_data_loss: bool = flag(
        False,
        "Train although over a tenth of the rows is lost for one reason, or over half of them lack a text or a picture "
        "that the fusion head reads.",
    )
    image_resize_mode: str | None = flag(
        None,
        "shortest: shortest side resized, then centre crop; squash: straight to the square. Default: clip squash, "
        "baseline and vilbert shortest.",
    )
    image_size: int | None = flag(None, "Side of the square picture in pixels. Default: the picture tower's own.")
    max_image_pixels: int = flag(
        MAX_PIXELS, "A picture of more pixels is taken as unreadable; JPEGs are decoded at 1/2, 1/4 or 1/8 instead."
    )
    max_length: int | None = flag(None, "Longest text in tokens; longer ones are cut. Default: by text tower.")
    max_train_samples: int | None = flag(None, "Train on N random pairs of the training part only (for a quick trial).")
    max_eval_samples: int | None = flag(
        None, "Evaluate N random pairs of the validation part only (for a quick trial)."
    )
    cache_dir: str | None = flag(
        None, "Folder for prepared data. Default: multimodal-sentiment in $XDG_CACHE_HOME or ~/.cache."
    )
    overwrite_cache: bool = flag(False, "Prepare the data again even if they are cached.")
    preprocessing_num_workers: int | None = flag(
        None, "Processes that decode pictures and read texts. Default: all cores."
    )

    def __post_init__(self) -> None:
        if self.data is not None:
            self._settle_data()
        if self.data_dir is None:
            object.__setattr__(self, "data_dir", self._find_dir())
            logger.info("Taking the data in %s; --data_dir names others.", self.data_dir)
        if not self.data_dir or not isinstance(self.data_dir, str):
            raise InputError(f"Got --data_dir {self.data_dir!r}; it takes a folder, for example data/project5.")
        self._check_labels()
        ratio = self.val_ratio
        if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 <= ratio < 1:
            raise InputError(f"--val_ratio is {ratio!r}; it takes a number from 0 (train on all) to below 1, like 0.1.")
        check_choice("--text_cleaning", self.text_cleaning, CLEANING_MODES)
        check_choice("--on_bad_pair", self.on_bad_pair, BAD_PAIR_MODES)
        if self.text_encoding is not None:
            check_encoding(self.text_encoding)
        if self.image_resize_mode is not None:
            check_choice("--image_resize_mode", self.image_resize_mode, RESIZE_MODES)
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"--{name} is {value!r}; it takes a whole number of at least 1, or is left out.")

    def _settle_data(self) -> None:
        """Of a table `data_dir` is where it lies; `--data` may also name what --data_dir does."""
        names: list[str]
        for part in ("test_data", "val_data", "data"):
            if (names := getattr(self, part)) is None:
                continue
            if not names or not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
                raise InputError(f"Got --{part} {names!r}; it takes files, folders or names of data sets.")
            object.__setattr__(self, part, list(map(os.path.expanduser, names)))
        first = os.path.expanduser(names[0])
        if len(names) == 1 and (self.streaming or os.path.exists(os.path.join(first, self.train_file))):
            if self.data_dir not in (None, first):
                raise InputError(f"Got --data {first} and --data_dir {self.data_dir}; leave one of the two out.")
            object.__setattr__(self, "data_dir", first)
            object.__setattr__(self, "data", None)
        elif self.data_dir is None:
            object.__setattr__(self, "data_dir", self._table_folder())

    def _table_folder(self) -> str:
        """Where the first file or folder of `data` lies."""
        first = self.data[0] if self.data else ""
        return (first if os.path.isdir(first) else os.path.dirname(first)) or "."

    def _find_dir(self) -> str:
        """The first of `DEFAULT_DIRS` that holds a list, or shards for a stream."""
        for folder in DEFAULT_DIRS:
            wanted = Path(folder).glob("train-*") if self.streaming else [Path(folder, self.train_file)]
            if Path(folder).is_dir() and any(path.exists() for path in wanted):
                return folder
        raise InputError(
            f"--data_dir is missing, and neither {' nor '.join(DEFAULT_DIRS)} in {Path.cwd()} holds "
            f"{'shards (train-*)' if self.streaming else self.train_file}: put it there, with data/{{guid}}.txt and "
            "data/{guid}.jpg beside it, or name another folder; or draw a sample: python -m data_utils.sample "
            "--output_dir data/sample, then --data_dir data/sample."
        )

    def refuse_tasks(self, asker: str) -> None:
        """`InputError` where the task is another than single_label, for `asker`, which knows that alone."""
        if self.task != "single_label":
            raise InputError(f"Got --task {self.task}, which {asker} can't do yet: it takes --task single_label alone.")

    def refuse_unused(self) -> None:
        """`InputError` for a flag of a command line that would have no effect beside the others."""
        idle = [name for name in OF_TABLES if getattr(self, name) != getattr(type(self), name)]
        if self.data is None and idle:
            raise InputError(f"Got --{idle[0]}, which is about tables, without a table in --data; leave it out.")
        if self.data is not None and not self.streaming:
            unread = {"data_dir": self._table_folder(), "train_file": type(self).train_file}
            if found := [name for name, usual in unread.items() if getattr(self, name) != usual]:
                raise InputError(f"Got --data and --{found[0]}, which is about lists of guid,tag; leave one out.")
        if not self.streaming:
            if self.shuffle_buffer_size != type(self).shuffle_buffer_size:
                raise InputError("Got --shuffle_buffer_size, which belongs to --streaming; leave it out.")
            return
        for name, remedy in UNSTREAMED.items():
            if getattr(self, name) != getattr(type(self), name):
                raise InputError(f"Got --{name} with --streaming; {remedy}.")
        if self.val_ratio not in (0, type(self).val_ratio):
            raise InputError(
                f"Got --val_ratio {self.val_ratio} with --streaming, where the shards hold the split: leave it out for "
                "the validation shards, or take 0 for none."
            )

    def _check_labels(self) -> None:
        labels = self.labels
        if self.task == "regression":
            if labels not in (None, [VALUE]):
                raise InputError(
                    f"Got --labels {labels!r} and --task regression, whose labels are numbers; leave it out."
                )
            return object.__setattr__(self, "labels", [VALUE])
        if labels is None:
            return  # see `data_utils.tables.opening.settle_labels`
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(
                f"--labels is {labels!r}; it takes a list of words, for example --labels negative neutral positive "
                "(in a YAML file put words like yes, no or 1 in quotes)."
            )
        labels = [unicodedata.normalize("NFC", label) for label in labels]
        object.__setattr__(self, "labels", labels)
        if self.task == "multi_label" and any(BETWEEN in label for label in labels):
            raise InputError(f"--labels is {labels!r}; with --task multi_label no name can have a {BETWEEN} in it.")
        if any(map(is_odd_label, labels)) or len(labels) < 2 or len(set(labels)) != len(labels):
            raise InputError(
                f"--labels is {labels!r}; it takes at least two labels, each of them once, none of them empty, 'null' "
                f"(which means unlabelled), with a comma, with a space at an end, or of over {LONGEST_LABEL:,} letters."
            )

    def resolved(self) -> dict[str, list[str] | str | None]:
        """The names of files and folders as they can be found from any working folder."""
        several = {name: getattr(self, name) for name in ("data", "val_data", "test_data")}
        return {
            "data_dir": _resolve(self.data_dir),
            "cache_dir": str(self.cache_path()),
            "image_dir": self.image_dir and _resolve(self.image_dir),
            **{name: paths and [_resolve(path) for path in paths] for name, paths in several.items()},
        }

    def list_path(self) -> Path:
        """The training list: `train_file` inside `data_dir`, else `train_file` as a path of its own."""
        inside = Path(self.data_dir, self.train_file)
        outside = Path(self.train_file)
        # Path.exists raises where a name is too long.
        return outside if not os.path.exists(inside) and os.path.exists(outside) else inside

    def cache_path(self) -> Path:
        """The folder for prepared data, with the default filled in."""
        if self.cache_dir:
            return Path(self.cache_dir).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "multimodal-sentiment")

    def num_workers(self) -> int:
        """Number of processes for preparing data: as asked for, else every core this process may use."""
        return self.preprocessing_num_workers or count_cores()


def is_odd_label(label: str) -> bool:
    """Whether a label can't be a class: files of results, and lists, would be read otherwise than they are meant."""
    is_named = label.strip() == label and label.casefold() not in ("", "null")
    return not is_named or "," in label or "\0" in label or len(label) > LONGEST_LABEL


def _resolve(name: str) -> str:
    """An absolute path; a URL, and a name of the hub, stay as they are."""
    is_path = "://" not in name and (os.path.exists(name) or not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name))
    return str(Path(name).resolve()) if is_path else name
