"""evaluate.py --predict FILE: one answer per row of a list, in its order, whatever is wrong with a row."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from numpy.typing import NDArray

from data_utils.console.screen import show
from data_utils.prepare.columns import is_labelled
from data_utils.prepare.pair_files import PairFolder, PairList, pair_folder
from data_utils.prepare.pairs import add_row_index
from data_utils.sources.encodings import decode_text
from data_utils.sources.label_forms import name_labels
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import read_records
from data_utils.system.files import encode_csv, write_together
from data_utils.tables.opening import names_table, open_asked
from evaluation.arguments import EvaluationArguments
from evaluation.predict.ensemble import Ensemble, EvalResult, Part, predict_rows
from evaluation.predict.loaded_run import LoadedRun
from evaluation.scores import contributions
from evaluation.scores.abstention import format_abstention, judge_confidence
from evaluation.scores.metrics import Floats
from evaluation.scores.scoring import format_metrics, score_answers
from evaluation.scores.thresholds import answer_rows
from evaluation.tasks.output_files import OutputFiles
from evaluation.tasks.split_evaluation import choose_step
from evaluation.tasks.table_output import PREDICTION, check_output, encode_answers
from modeling.errors import InputError
from run_files.output import write_json

logger = logging.getLogger(__name__)
_SHOWN = 60  # characters


@dataclass(frozen=True)
class AskedList:
    """What was asked, read and prepared: each model with the rows.

    `pair_dir` is the folder of a list's pairs; of a table `table` has its columns.
    """

    source: Path
    pair_dir: Path
    table: Dataset | None
    parts: list[Part]
    quarantine: Quarantine

    @property
    def guids(self) -> list[str]:
        """Of the rows."""
        return self.parts[0][1]["guid"][:]


def prepare_list(ensemble: Ensemble, name: str, files: OutputFiles | None, *, data_dir: str | None) -> AskedList:
    """Read the list and prepare its rows for every model; `InputError` where that, or the output, can't be.

    Without `files` the answers are not to be written.
    """
    source = Path(name)
    if names_table(name, ensemble.first.data):
        return _prepare_table(ensemble, name, files)
    if not source.is_file():
        raise InputError(
            f"Got --predict {source}, which is not a file; name a list of guid,tag lines, or add --streaming for "
            "shards."
        )
    if files is not None:
        files.prepare([source, *ensemble.first.list_files()])
    pair_dir = find_pair_dir(source, ensemble.first, data_dir=data_dir)
    found = ensemble.load_once(lambda run: run.load_rows(PairList(source, pair_dir), for_prediction=True))
    parts = [(run, add_row_index(pairs.dataset)) for run, pairs in zip(ensemble.runs, found, strict=True)]
    return AskedList(source, pair_dir, None, parts, found[0].quarantine)


def _prepare_table(ensemble: Ensemble, name: str, files: OutputFiles | None) -> AskedList:
    """As `prepare_list`, of a table."""
    asked, source = open_asked("--predict", [name], ensemble.first.data), Path(name)
    (table,) = asked.tables.values()
    if files is not None:
        scores = [f"prob_{name}" for name in ensemble.first.label_names]
        further = [*contributions.COLUMNS, "confidence", "answered"]
        check_output(files.output, table.dataset, [PREDICTION, *scores, *further])
        files.prepare([source, *ensemble.first.list_files()])
    found = ensemble.load_once(lambda run: run.load_rows(asked, for_prediction=True))
    parts = [(run, add_row_index(pairs.dataset)) for run, pairs in zip(ensemble.runs, found, strict=True)]
    return AskedList(source, asked.path, table.dataset, parts, found[0].quarantine)


def ask_list(
    ensemble: Ensemble, asked: AskedList, arguments: EvaluationArguments, accelerator: Accelerator
) -> EvalResult:
    """What the models say of the rows on average, in the rows' order."""
    step, batch_size = choose_step(ensemble.first, arguments), arguments.per_device_eval_batch_size
    outputs = predict_rows(asked.parts, step, batch_size=batch_size, accelerator=accelerator)
    labels = np.asarray(asked.parts[0][1]["label"][:])
    _warn_of_known_rows(ensemble, asked, is_labelled(labels))
    return EvalResult(tuple(asked.guids), labels, outputs)


def predict_list(
    ensemble: Ensemble,
    asked: AskedList,
    files: OutputFiles,
    arguments: EvaluationArguments,
    accelerator: Accelerator,
    abstention: dict[str, Any] | None,
) -> None:
    """Write a line per row, and beside it probabilities (the models' mean) and what else is asked for."""
    result = ask_list(ensemble, asked, arguments, accelerator)
    if not accelerator.is_main_process:
        return
    probabilities, labels, names = result.outputs["full"], result.labels, ensemble.first.label_names
    found = contributions.compute_contributions(result.outputs) if arguments.contributions else {}
    columns = {name: found[name] for name in contributions.COLUMNS if name in found}
    if abstention is not None:
        columns |= judge_confidence(probabilities, abstention)
    answers = answer_rows(probabilities, labels, ensemble.thresholds())
    _write_answers(asked, files, name_labels(answers, names), probabilities, names, columns)
    if is_labelled(labels).any():
        metrics = score_answers(probabilities, labels, answers, names)
        write_json(files.metrics, metrics)
        show(format_metrics(metrics, title=f"labelled rows of {asked.source}"), "")
    if found:
        summary = contributions.summarise_contributions(found, names)
        write_json(files.contributions, summary)
        show(contributions.format_contributions(summary, title=asked.source.name), "")
    if abstention is not None:
        share = f"answered here: {np.mean(columns['answered']):.1%}, see the columns confidence and answered"
        show(format_abstention(abstention), share, "")
    show(f"{len(probabilities)} predictions are in {files.output}, probabilities in {files.probabilities}.")


def find_pair_dir(source: Path, run: LoadedRun, *, data_dir: str | None) -> Path:
    """The folder of the pairs: --data_dir if given, else of the list's own folder and the run's that which has files.

    Raises:
        InputError: in none of them is a file of any row: every prediction would be the same guess.
    """
    candidates = [Path(data_dir)] if data_dir is not None else [source.parent, Path(run.data.data_dir)]
    records = read_records(source, labels=run.data.labels, quarantine=Quarantine(), for_prediction=True)
    folders = {path: PairFolder(pair_folder(path)) for path in candidates if os.path.isdir(path)}
    for path, folder in folders.items():
        if any("file" in (files.text.kind, files.picture.kind) for files in map(folder.find, records.guids)):
            return path
    guid = records.guids[0]
    names = (folder.find_near(guid, is_text=is_text) for folder in folders.values() for is_text in (True, False))
    near = next((f" ({name.text})" for name in names if name), "")
    shown = repr(guid if len(guid) <= _SHOWN else f"{guid[:_SHOWN]}...")  # not all of a line that has no comma
    raise InputError(
        f"Found no text and no picture of the {len(records)} rows of {source} in {' or '.join(map(str, candidates))}. "
        f"Its first row, line {records.numbers[0]}, was read as the guid {shown}{near}: if that is a guid, pass "
        "--data_dir, the folder that has data/{guid}.txt and data/{guid}.jpg in it; if not, write the list as UTF-8 "
        "text of lines guid,tag, in this order and with a comma between."
    )


def _write_answers(
    asked: AskedList,
    files: OutputFiles,
    answers: Sequence[str],
    probabilities: Floats,
    label_names: list[str],
    columns: Mapping[str, NDArray[Any]],
) -> None:
    """Answers, probabilities (N, C) and further columns (N,) beside them, and what was wrong with rows."""
    guids = asked.guids
    rows = [list(row) for row in zip(guids, answers, strict=True)]
    if len(label_names) == 1:  # the answers of a regression are its numbers
        label_names, probabilities = [], probabilities[:, :0]
    header = ["guid", "prediction", *(f"prob_{name}" for name in label_names), *columns]
    details = [
        [*row, *map(_format, [*values, *(column[number] for column in columns.values())])]
        for number, (row, values) in enumerate(zip(rows, probabilities, strict=True))
    ]
    if asked.table is None:
        content = encode_csv([*_read_header(asked.source, len(guids)), *rows])
    else:
        scores = dict(zip(header[2:], (*probabilities.T.round(6), *columns.values()), strict=True))
        content = encode_answers(files.output, asked.table, {PREDICTION: answers} | scores)
    write_together({files.output: content, files.probabilities: encode_csv([header, *details])})
    for path in files.optional:
        path.unlink(missing_ok=True)
    asked.quarantine.save(files.quarantine, keep_empty=False)
    if asked.quarantine.summary():
        logger.info("%s", asked.quarantine.summary())


def _format(value: float | bool) -> str:
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else f"{value:.6f}"


def _read_header(source: Path, num_rows: int) -> list[list[str]]:
    """The names of the list's first two columns; nothing if it has a line for each row alone, and so no header."""
    text, _ = decode_text(source.read_bytes())
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip("\0 \t\ufeff")]
    if len(lines) == num_rows:
        return []
    first, second, *_ = [*(cell.strip() for cell in next(csv.reader(lines[:1], skipinitialspace=True))), ""]
    return [[first, second or "tag"]]


def _warn_of_known_rows(ensemble: Ensemble, asked: AskedList, is_labelled: NDArray[np.bool_]) -> None:
    """Say so where rows have the names of rows that a model was trained on.

    Without labels there are no figures to be flattered, and equal names mean something in the run's own folder alone.
    """
    trained = {guid for run in ensemble.runs for guid in run.training_guids()}
    own = Path(ensemble.first.training_dir())
    if asked.table is None:
        is_meant = is_labelled | (own.is_dir() and pair_folder(own) == pair_folder(asked.pair_dir))
    else:  # whose rows may be named by their numbers, as those of any other
        is_meant = np.full(len(is_labelled), str(asked.source.resolve()) in (ensemble.first.data.data or ()))
    num_known = int((np.array([guid in trained for guid in asked.guids]) & is_meant).sum())
    if num_known:
        logger.warning(
            "%d rows have the guids of rows that the run was trained on: if they are these rows, their answers are "
            "surer and more often right than for new rows, and any figures too good. evaluate.py RUN judges the run's "
            "own rows.",
            num_known,
        )
