"""Checking the data that flags name, and the files about it."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_utils.check.arguments import CheckArguments
from data_utils.console.screen import printable, show
from data_utils.console.tables import format_interval, format_table
from data_utils.page.render import render_page
from data_utils.prepare.pairs import load_pairs
from data_utils.quality.check import Check, check_pairs
from data_utils.quality.problems import PROBLEMS
from data_utils.quality.view import build_view
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import QUARANTINE_FILE
from data_utils.splits.split_file import load_split
from data_utils.system.files import encode_csv, write_together
from data_utils.tables.opening import open_source, settle_labels
from modeling.errors import InputError
from modeling.pictures import PictureSettings
from run_files.folds_folder import OUT_OF_FOLD_FILE
from run_files.predictions_csv import read_predictions_csv

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("check.html")
# As --model clip has them by default, so that its training finds the pictures decoded.
_SIDE, _BICUBIC = 224, 3


def check_data(args: CheckArguments, data: DataArguments) -> str | None:
    """Check the data, write the files and show what was found; returns one sentence about what --fail_on names.

    Raises:
        InputError: the data, the split or the predictions can't be used, or a file can't be written.
    """
    start, output = time.perf_counter(), Path(args.output_dir)
    data = settle_labels(data)
    source, side = open_source(data), data.image_size or _SIDE
    picture = PictureSettings(side, side, data.image_resize_mode or "squash", _BICUBIC)
    pairs = load_pairs(source, data=data, picture=picture, needs=())
    split = None if data.split_file is None else load_split(Path(data.split_file), known_guids=pairs.known_guids)
    answers = None if args.predictions is None else _read_answers(Path(args.predictions), data, pairs.known_guids)
    logger.info("Looking at %d rows.", len(pairs.dataset))
    check = check_pairs(
        pairs,
        data.labels,
        split=split,
        labels_by=args.labels_by,
        answers=answers,
        read_cell=source.read_cell,
        seed=args.seed,
    )
    view = build_view(check, pairs.dataset, data.labels, num_rows=args.page_rows)
    page = render_page(TEMPLATE, source=source.name, check=view)
    contents = {f"{name}.csv": encode_csv(table) for name, table in check.tables.items()}
    contents |= {"check.html": page.encode(), "check.json": (json.dumps(check.figures, indent=2) + "\n").encode()}
    write_together({output / name: content for name, content in contents.items()})
    pairs.quarantine.save(output / QUARANTINE_FILE)
    show(format_check(check), f"{output / 'check.html'} shows them ({time.perf_counter() - start:.0f} s).")
    return _judge(check, args.limits(), len(pairs.dataset))


def _read_answers(path: Path, data: DataArguments, known: set[str]) -> dict[str, NDArray[np.float64]]:
    """Probabilities by guid of a cross-validated run, or of a file, in the order of the labels."""
    found = path / OUT_OF_FOLD_FILE if path.is_dir() else path
    if not found.is_file():
        raise InputError(
            f"Got --predictions {path}: {found} does not exist. Only rows that models had not seen tell of labels: "
            "name a run of `train.py --folds 5`, or leave it out for a quick probe."
        )
    table = read_predictions_csv(found)
    if set(table.label_names) != set(data.labels):
        raise InputError(
            f"The predictions {found} know the labels {', '.join(table.label_names)}, and the data "
            f"{', '.join(data.labels)}; check --predictions, and the order in --labels."
        )
    table = table.with_classes(data.labels)
    answers = {guid: row for guid, row in zip(table.guids, table.probabilities, strict=True) if guid in known}
    if not answers:
        raise InputError(f"No row of the predictions {found} is one of the data; check --predictions and the data.")
    return answers


def format_check(check: Check) -> str:
    """What was found, for the screen."""
    figures = check.figures
    lines = [
        format_table([["found", ""], *([PROBLEMS[name], str(count)] for name, count in figures["problems"].items())])
    ]
    for kind, reader in figures["readers"].items():
        if reader is not None:
            reachable = format_interval(reader["accuracy"]["value"], reader["accuracy"]["interval"])
            what = {"text": "of the text", "image": "of the picture", "both": "of text and picture"}[kind]
            lines.append(f"A reader {what}, by {reader['rows']} rows with labelled twins: accuracy at most {reachable}")
    if (reason := figures["labels"].get("reason")) is not None:
        lines.append(f"Labels were not judged: {printable(reason)}")
    return "\n".join(lines)


def _judge(check: Check, limits: dict[str, float], num_rows: int) -> str | None:
    found = check.figures["problems"]
    allowed = {name: int(limit * num_rows if limit < 1 else limit) for name, limit in limits.items()}
    over = [
        f"{found[name]} {PROBLEMS[name]} (allowed: {limit})" for name, limit in allowed.items() if found[name] > limit
    ]
    return f"failed by --fail_on: {'; '.join(over)}." if over else None
