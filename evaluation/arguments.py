"""The command line of evaluate.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_utils.console.command_line import FlagParser
from modeling.errors import InputError

SPLITS = ("val", "train", "test", "all")
ABLATION_INPUTS = ("mask", "blank")
MIXED_PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class EvaluationArguments:
    """What evaluate.py is asked for; `build_parser` describes each. None stands for the default of a part unused."""

    run: str
    split: str | None = None
    ablation: bool = False
    ablation_input: str | None = None
    contributions: bool = False
    robustness: bool = False
    abstain: float | None = None
    predict: str | None = None
    output: str | None = None
    data_dir: str | None = None
    per_device_eval_batch_size: int = 32
    mixed_precision: str | None = None
    cache_dir: str | None = None
    streaming: bool = False
    dataloader_num_workers: int = 0
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.predict is not None and self.output is None:
            raise InputError(f"Got --predict {self.predict} without --output; add --output FILE for the predictions.")
        if self.output is not None and self.predict is None:
            raise InputError(f"Got --output {self.output} without --predict; add --predict FILE, the list to predict.")
        if self.output is not None and (Path(self.output).name in ("", "..") or self.output.endswith(os.sep)):
            raise InputError(
                f"Got --output {self.output!r}, which names no file; name one for the predictions, as predictions.txt."
            )
        if self.predict is not None and (self.ablation or self.robustness or self.split is not None):
            raise InputError(
                "Got --predict together with --split, --ablation or --robustness; run evaluate.py once for each."
            )
        if self.ablation + self.contributions + self.robustness > 1:
            raise InputError("Got two of --ablation, --contributions and --robustness; run evaluate.py once for each.")
        if self.ablation_input is not None and not (self.ablation or self.contributions):
            raise InputError(
                f"Got --ablation_input {self.ablation_input}, which is for --ablation and --contributions; add one."
            )
        if self.abstain is not None and not 0 < self.abstain <= 1:
            raise InputError(f"Got --abstain {self.abstain}; it takes the wanted accuracy, above 0 and at most 1.")
        is_other = self.ablation or self.robustness or (self.contributions and self.predict is None)
        if self.abstain is not None and (is_other or self.streaming):
            raise InputError("Got --abstain, which goes with plain scoring and with --predict FILE; leave it out here.")
        if self.contributions and self.streaming:
            raise InputError("Got --contributions with --streaming; predict a list, or leave one of them out.")
        if self.predict is None and (self.streaming or self.dataloader_num_workers):
            raise InputError("--streaming and --dataloader_num_workers are for --predict SHARDS; add it.")
        if self.dataloader_num_workers and not self.streaming:
            raise InputError("Got --dataloader_num_workers without --streaming, where pictures come out of a cache.")
        if self.per_device_eval_batch_size < 1:
            raise InputError(
                f"Got --per_device_eval_batch_size {self.per_device_eval_batch_size}; it must be 1 or more."
            )


@dataclass(frozen=True)
class ComparisonArguments:
    """What `evaluate.py compare` is asked for; `parse_comparison` describes each."""

    runs: list[str]
    output: str | None = None
    common_rows: bool = False


def parse_arguments(argv: Sequence[str] | None = None) -> EvaluationArguments:
    """The command line as `EvaluationArguments`; `InputError` for what it doesn't allow."""
    return EvaluationArguments(**build_parser().parse(argv))


def parse_comparison(argv: Sequence[str]) -> ComparisonArguments:
    """The words after `compare`; `InputError` for one that isn't allowed."""
    parser = FlagParser(
        prog="evaluate.py compare",
        description="Compare runs on the rows that they all judge: figures with intervals, and a test of each pair.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="two or more: a folder of train.py --folds, a folder of train.py, or a file of predictions as they write",
    )
    parser.add_argument("--output", metavar="DIR", help="folder for comparison.md, .csv, .json, .png and pairs.csv")
    parser.add_argument(
        "--common_rows", action="store_true", help="compare the rows that all runs judge, where some judge others too"
    )
    return ComparisonArguments(**parser.parse(argv))


def build_parser() -> FlagParser:
    """The parser of evaluate.py's command line."""
    parser = FlagParser(
        prog="evaluate.py",
        description="Score a run, measure its modalities, or predict new pairs. `evaluate.py compare RUN RUN ...` says "
        "which of several runs is better: see evaluate.py compare --help.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, as train.py leaves it (its --output_dir)")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--split",
        choices=SPLITS,
        help="rows of the run's split.json to score (default: val; of a cross-validated run what each fold held out)",
    )
    scoring.add_argument(
        "--ablation", action="store_true", help="score the full, the text-only and the image-only input of the model"
    )
    scoring.add_argument(
        "--ablation_input",
        choices=ABLATION_INPUTS,
        help="what stands for the missing modality: mask (default), the learned missing-modality vector, which the "
        "modality dropout of training has trained; or blank, an empty text or a black picture, which no training saw",
    )
    scoring.add_argument(
        "--contributions",
        action="store_true",
        help="what text and picture contribute to each answer (Shapley values) and what they do only together; also "
        "with --predict",
    )
    scoring.add_argument(
        "--robustness",
        action="store_true",
        help="score with missing texts or pictures, blurred, noisy or coarse pictures, and typing errors",
    )
    scoring.add_argument(
        "--abstain",
        type=float,
        metavar="ACCURACY",
        help="the confidence from which on answers are right this often, learned from rows held out in training; with "
        "--predict two columns say each row's confidence and whether it is answered",
    )
    prediction = parser.add_argument_group("prediction")
    prediction.add_argument(
        "--predict", metavar="FILE", help="a list of guid,tag lines to predict; tags, where it has any, are scored"
    )
    prediction.add_argument("--output", metavar="OUT", help="the file for the predictions, one line per row of FILE")
    prediction.add_argument(
        "--streaming",
        action="store_true",
        help="FILE is a folder, glob, file or URL of shards (Parquet or tar), answered in their order",
    )
    prediction.add_argument(
        "--dataloader_num_workers", type=int, metavar="N", help="processes per rank that decode a stream"
    )
    common = parser.add_argument_group("common")
    common.add_argument("--data_dir", metavar="DIR", help="where the data lies now (default: where it was in training)")
    common.add_argument("--per_device_eval_batch_size", type=int, metavar="N", help="rows per device (default: 32)")
    common.add_argument(
        "--mixed_precision", choices=MIXED_PRECISIONS, help="default: the launcher's, else as in training"
    )
    common.add_argument(
        "--cache_dir",
        metavar="DIR",
        help="for the prepared data (default: the usual one; the training's own must be named)",
    )
    common.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run program code that the run's tokenizer brings along, as after train.py --trust_remote_code",
    )
    return parser
