"""The command line of evaluate.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from data_utils.console.command_line import FlagParser, flag
from modeling.errors import InputError

# By the flag, or the word after --export: what requirements.txt hasn't.
PACKAGES = {"export onnx": ("onnx", "onnxscript", "onnxruntime"), "explain_gradients": ("captum",)}


@dataclass(frozen=True, kw_only=True)
class ScoringFlags:
    group: ClassVar[str] = "scoring"

    split: Literal["val", "train", "test", "all"] | None = flag(
        None,
        "Rows of the run's split.json to score (default: val; of a cross-validated run what each fold held out).",
    )
    ablation: bool = flag(False, "Score the full, the text-only and the image-only input of the model.")
    ablation_input: Literal["mask", "blank"] | None = flag(
        None,
        "What stands for the missing modality: mask (default), the learned missing-modality vector, which the modality "
        "dropout of training has trained; or blank, an empty text or a black picture, which no training saw.",
    )
    contributions: bool = flag(
        False,
        "What text and picture contribute to each answer (Shapley values) and what they do only together; also with "
        "--predict.",
    )
    robustness: bool = flag(
        False, "Score with missing texts or pictures, blurred, noisy or coarse pictures, and typing errors."
    )
    report: bool = flag(
        False, "Write RUN/report.html: all that is known of the run, on one page that asks for nothing else."
    )
    report_rows: int = flag(200, "With --report: misjudged rows that are shown.")
    explain: bool = flag(
        False, "Which words and which regions of the picture moved the answers, and how far that can be believed."
    )
    explain_rows: int | None = flag(
        None, "So many rows are explained (default: 200), misjudged ones first, the most confident before the others."
    )
    explain_gradients: bool = flag(False, "With --explain: integrated gradients (captum) as a second opinion.")
    abstain: float | None = flag(
        None,
        "The confidence from which on answers are right this often, learned from rows held out in training; with "
        "--predict two columns say each row's confidence and whether it is answered.",
    )


@dataclass(frozen=True, kw_only=True)
class PredictionFlags:
    group: ClassVar[str] = "prediction"

    predict: str | None = flag(
        None, "A list of guid,tag lines, or a table as for train.py --data; labels, where it has any, are scored."
    )
    output: str | None = flag(
        None,
        "The file for the predictions, one per row; of a table with its columns, as .csv, .jsonl or .parquet. Of "
        "--export the folder.",
    )
    streaming: bool = flag(
        False, "--predict is a folder, glob, file or URL of shards (Parquet or tar), answered in their order."
    )
    dataloader_num_workers: int = flag(0, "Processes per rank that decode a stream.")


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    group: ClassVar[str] = "export"

    export: Literal["onnx", "torch", "transformers"] | None = flag(
        None,
        "onnx, torch: write the model as a graph that runs without this project, for onnxruntime or torch.export.load, "
        "if it answers the rows of --split as the model does. transformers: all models of a cross-validated run as "
        "one, which transformers loads as it does RUN/model. To RUN/export, or the folder --output.",
    )
    export_int8: bool = flag(
        False, "With --export onnx: a second, smaller graph of 8-bit integers, and what it loses on all these rows."
    )


@dataclass(frozen=True, kw_only=True)
class CommonFlags:
    group: ClassVar[str] = "common"

    data_dir: str | None = flag(None, "Where the data lies now (default: where it was in training).")
    per_device_eval_batch_size: int = flag(32, "Rows per device.")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = flag(None, "Default: the launcher's, else as in training.")
    cache_dir: str | None = flag(
        None, "For the prepared data (default: the usual one; the training's own must be named)."
    )
    trust_remote_code: bool = flag(
        False, "Run program code that the run's tokenizer brings along, as after train.py --trust_remote_code."
    )


@dataclass(frozen=True, kw_only=True)
class TableFlags:
    """Flags of `DataArguments` that stand in the place of the training's."""

    group: ClassVar[str] = "tables (default: as in training)"

    data: list[str] | None = flag(None, "Where the table lies now, as for train.py --data.")
    val_data: list[str] | None = flag(None, "The same of its --val_data.")
    test_data: list[str] | None = flag(None, "The same of its --test_data.")
    text_column: list[str] | None = flag(None, "Column of the texts.")
    image_column: str | None = flag(None, "Column of the pictures.")
    label_column: list[str] | None = flag(None, "Column of the labels.")
    id_column: str | None = flag(None, "Column of the rows' names.")
    image_dir: str | None = flag(None, "Where relative paths of pictures begin.")
    allow_urls: bool = flag(False, "Fetch pictures that are given as http(s) URLs.")


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments(ScoringFlags, PredictionFlags, ExportFlags, TableFlags, CommonFlags):
    """What evaluate.py is asked for."""

    run: str

    def __post_init__(self) -> None:
        is_folder = self.output is not None and self.output.endswith(os.sep) and self.export is None
        if self.output is not None and (is_folder or Path(self.output).name in ("", "..")):
            raise InputError(f"Got --output {self.output!r}, which names no file; name one, as predictions.txt.")
        if self.abstain is not None and not 0 < self.abstain <= 1:
            raise InputError(f"Got --abstain {self.abstain}; it takes the wanted accuracy, above 0 and at most 1.")
        for name in ("per_device_eval_batch_size", "explain_rows"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise InputError(f"Got --{name} {number}; give 1 or more.")
        asked = [
            name for name in ("ablation", "contributions", "robustness", "explain", "report") if getattr(self, name)
        ]
        predicts, worse, workers = (
            self.predict is not None,
            self.ablation or self.robustness or self.explain,
            self.dataloader_num_workers,
        )
        abstains_there = not (worse or self.streaming or (self.contributions and not predicts))
        if not 0 <= self.report_rows <= 2000:
            raise InputError(f"Got --report_rows {self.report_rows}; it takes 0 to 2000.")
        conflicts: list[tuple[object, str]] = [
            (self.data and self.data_dir, "--data and --data_dir"),
            (predicts and self.output is None, "--predict without --output"),
            (self.output is not None and not (predicts or self.export), "--output without --predict or --export"),
            (self.export and (predicts or asked or self.abstain), "--export and something else to do"),
            (self.export and self.mixed_precision, "--export and --mixed_precision, where graphs are of float32"),
            (self.export_int8 and self.export != "onnx", "--export_int8 without --export onnx"),
            (self.report and (predicts or self.abstain), "--report and --predict or --abstain"),
            (len(asked) > 1, f"--{' and --'.join(asked)}"),
            (
                self.ablation_input and asked not in (["ablation"], ["contributions"]),
                "--ablation_input without --ablation or --contributions",
            ),
            (predicts and (worse or self.split), "--predict with --split, --ablation, --robustness or --explain"),
            (
                not self.explain and (self.explain_rows or self.explain_gradients),
                "--explain_rows or --explain_gradients without --explain",
            ),
            (self.abstain and not abstains_there, "--abstain, which goes with plain scoring and with --predict FILE"),
            (self.contributions and self.streaming, "--contributions with --streaming"),
            (not predicts and (self.streaming or workers), "--streaming, or its workers, without --predict SHARDS"),
            (workers and not self.streaming, "--dataloader_num_workers without --streaming"),
        ]
        for is_got, what in conflicts:
            if is_got:
                raise InputError(f"Got {what}; leave one out, add what is missing, or run evaluate.py once for each.")
        self._check_packages()

    def _check_packages(self) -> None:
        """`InputError` where a package that is needed for what is asked is not installed."""
        for flags, needed in PACKAGES.items():
            is_asked = flags == f"export {self.export}" or (flags == "explain_gradients" and self.explain_gradients)
            missing = [name for name in needed if is_asked and find_spec(name) is None]
            if missing:
                raise InputError(f"Got --{flags}, which needs more packages: pip install {' '.join(missing)}.")


@dataclass(frozen=True, kw_only=True)
class ComparisonFlags:
    """Of `evaluate.py compare`."""

    output: str | None = flag(None, "Folder for comparison.md, .csv, .json, .png and pairs.csv.")
    common_rows: bool = flag(False, "Compare the rows that all runs judge, where some judge others too.")


@dataclass(frozen=True, kw_only=True)
class ComparisonArguments(ComparisonFlags):
    """What `evaluate.py compare` is asked for."""

    runs: list[str]


def parse_arguments(argv: Sequence[str] | None = None) -> EvaluationArguments:
    """The command line as `EvaluationArguments`; `InputError` for what it doesn't allow."""
    parser = FlagParser(
        *(ScoringFlags, PredictionFlags, ExportFlags, TableFlags, CommonFlags),
        prog="evaluate.py",
        description="Score a run, measure its modalities, or predict new pairs. `evaluate.py compare RUN RUN ...` says "
        "which of several runs is better: see evaluate.py compare --help.",
        bare_switches=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, as train.py leaves it (its --output_dir)")
    return EvaluationArguments(**parser.parse(argv))


def parse_comparison(argv: Sequence[str]) -> ComparisonArguments:
    """The words after `compare`; `InputError` for one that isn't allowed."""
    parser = FlagParser(
        ComparisonFlags,
        prog="evaluate.py compare",
        description="Compare runs on the rows that they all judge: figures with intervals, and a test of each pair.",
        bare_switches=True,
    )
    help = "two or more: a folder of train.py --folds, a folder of train.py, or a file of predictions as they write"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=help)
    return ComparisonArguments(**parser.parse(argv))
