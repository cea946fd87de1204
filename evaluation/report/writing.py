"""RUN/report.html: everything that is known of a run, on one page."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_utils.console.screen import printable, without_notices
from data_utils.page.render import write_page
from data_utils.prepare.pairs import Pairs
from data_utils.quality.check import check_pairs
from data_utils.quality.view import build_view
from data_utils.splits.split_file import load_split
from data_utils.tables.opening import open_source
from evaluation.predict.ensemble import Ensemble, load_ensemble
from evaluation.report import figures
from evaluation.report.judged import Judged, find_judged
from evaluation.report.rows import ShownRows
from run_files.explanations import explanations_file, read_explanations
from run_files.row_answers import RowAnswers

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("templates") / "report.html"
ROWS_AT_END = 50  # that are shown at the end of a training
CHECKED_ROWS = 50  # of each table of the data check


def report_at_end(path: Path, cache_dir: str | None) -> None:
    """A report of a run that has just been trained, without a pass over its rows; a failure is told, and no more."""
    try:
        with without_notices():  # what is to be said of the data was said before the training
            ensemble = load_ensemble(path, cache_dir=cache_dir)
            judged = find_judged(ensemble.folder, None)
            report(judged, ensemble, None, most=ROWS_AT_END, checks_data=False)
        told = "The report is %s; python evaluate.py %s --report adds what text and picture say alone."
        logger.info(told, judged.folder.report_file, path)
    except Exception as error:  # the run is whole without it, whatever was wrong
        told = "No report was written (%s); python evaluate.py %s --report tries again."
        logger.warning(told, printable(error), path)


def report(judged: Judged, ensemble: Ensemble, answers: RowAnswers | None, *, most: int, checks_data: bool) -> None:
    """`write_report` of a run and its data; of a stream without these."""
    run = ensemble.first
    if run.data.streaming:
        return write_report(judged, None, most=most)
    source = open_source(run.data)
    pairs = run.load_rows(source)
    file, reasons = explanations_file(judged.folder.path, judged.split), {}
    if file.is_file():
        reasons = {row.guid: row for row in read_explanations(file)[0]}
    shown = ShownRows(judged, pairs.dataset, run.picture.image_size, answers, reasons)
    check = _check(judged, pairs, source.read_cell) if checks_data else None
    write_report(judged, shown, most=most, check=check)


def _check(judged: Judged, pairs: Pairs, read_cell: Any) -> dict[str, Any]:
    """The data check, which suspects labels by what the run answered for rows that it wasn't trained on."""
    table, has_split = judged.table, judged.folder.split_file.is_file()
    can_suspect = judged.task_name == "single_label" and find_spec("cleanlab") is not None
    found = check_pairs(
        pairs,
        table.label_names,
        split=load_split(judged.folder.split_file, known_guids=pairs.known_guids) if has_split else None,
        labels_by="none",
        answers=dict(zip(table.guids, table.probabilities, strict=True)) if can_suspect else None,
        read_cell=read_cell,
    )
    return build_view(found, pairs.dataset, table.label_names, num_rows=CHECKED_ROWS)


def write_report(judged: Judged, shown: ShownRows | None, *, most: int, check: dict[str, Any] | None = None) -> None:
    """Write RUN/report.html, with at most so many misjudged rows."""
    sections = judged.folder.load_arguments()
    alone = {} if shown is None or shown.answers is None else shown.answers.alone
    modalities = figures.judge_inputs(judged, alone)
    values: dict[str, Any] = {
        **{"judged": judged, "folder": judged.folder.path.name, "sections": sections},
        "warnings": [*judged.warnings(), *(modalities["remarks"] if modalities else [])],
        "curves": figures.draw_curves(judged),
        "confusions": figures.count_confusions(judged),
        "classes": figures.tabulate_classes(judged),
        "calibration": figures.draw_calibration(judged) + figures.draw_numbers(judged),
        "modalities": modalities,
        "conflicts": shown.tabulate_conflicts() if shown else [],
        "robustness": figures.tabulate_robustness(judged.folder),
        "rows": list(shown.describe(most)) if shown else [],
        "slices": shown.compare_slices() if shown else [],
        "check": check,
        "faults": list(figures.count_faults(judged.folder.quarantine_file)),
        "origin": figures.describe_origin(judged.folder, sections),
    }
    write_page(judged.folder.report_file, TEMPLATE, **values)
