"""`evaluate.py RUN --report`: the models are asked of each row what the page shows, and the page is written."""

from __future__ import annotations

import os
import time

from data_utils.console.screen import show
from evaluation.arguments import EvaluationArguments
from evaluation.report.judged import find_judged
from evaluation.report.row_pass import ask_rows
from evaluation.report.writing import report
from evaluation.scores.sweep_summary import write_summary
from evaluation.tasks.session import choose_precision, join_ranks, open_ensemble
from run_files.row_answers import RowAnswers
from run_files.sweep_folder import SweepFolder


def run_report(arguments: EvaluationArguments) -> None:
    """Ask the models what the page shows beyond their answers, unless that was done before, and write it."""
    folder = SweepFolder(arguments.run)
    sections = folder.load_arguments()
    is_main = os.environ.get("RANK", "0") == "0"
    if "sweep" in sections:
        if not is_main:
            return None
        metric = str(sections["training"].get("metric_for_best_model", "accuracy"))
        return show(write_summary(folder, metric), f"The report is in {folder.report_file}.")
    ensemble = open_ensemble(arguments)
    judged = find_judged(ensemble.folder, None if ensemble.is_cross_validated else arguments.split)
    answers = RowAnswers.read(judged.folder.path, judged.split, judged.table)
    if answers is None:
        accelerator = join_ranks(choose_precision(ensemble.first, arguments))
        size = arguments.per_device_eval_batch_size
        answers = ask_rows(ensemble, judged.table, judged.split, accelerator, size)
        if answers is not None:  # on the main rank
            answers.write(judged.folder.path, judged.split)
            answers = RowAnswers.read(judged.folder.path, judged.split, judged.table)  # as the next report has them
    if not is_main:
        return None
    begin = time.perf_counter()
    report(judged, ensemble, answers, most=arguments.report_rows, checks_data=True)
    show(f"The report is in {judged.folder.report_file} ({time.perf_counter() - begin:.1f} s).")
