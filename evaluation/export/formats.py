"""evaluate.py --export: a run's model in a format that needs no part of this project, in a folder of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer

from data_utils.console.screen import show
from data_utils.prepare.collator import refuse_several_pictures
from data_utils.system.files import list_own, new_folder, write_text
from data_utils.system.refusals import tell_refusals
from data_utils.system.schema import read_json
from evaluation.arguments import EvaluationArguments
from evaluation.export import graphs
from evaluation.export.checking import NUM_ROWS, TOLERANCE, check_answers, measure_loss
from evaluation.export.folder import export_folder
from evaluation.predict.ensemble import Ensemble
from evaluation.predict.loaded_run import LoadedRun
from modeling.errors import InputError
from modeling.text import REPLACEMENTS, TEXT_SEPARATOR
from run_files.output import write_json

logger = logging.getLogger(__name__)
REPORT, SUFFIXES = "export.json", {"onnx": "onnx", "torch": "pt2"}


def export_run(ensemble: Ensemble, arguments: EvaluationArguments) -> None:
    """Write RUN/export/{format} or --output, whole or not at all; an earlier export there is replaced."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Got --export in several processes; start one: python evaluate.py RUN --export ...")
    name, place = str(arguments.export), ensemble.folder.path / "export"
    if arguments.output is None and place.is_symlink():
        raise InputError(f"{place} is a link, which is not followed; take it away, or name a folder by --output.")
    folder = place / name if arguments.output is None else Path(arguments.output)
    _refuse_others(folder)
    with tell_refusals(folder), new_folder(folder) as partial:
        report = {"format": name} | EXPORTERS[name](ensemble, arguments, partial)
        sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        write_json(partial / REPORT, report | {"bytes": sizes})
    show(f"Saved in {folder}.")


def _refuse_others(folder: Path) -> None:
    """`InputError` where anything lies that an earlier export didn't write."""
    report = folder / REPORT
    known = {REPORT, *read_json(report, dict[str, Any]).get("bytes", ())} if report.is_file() else ()
    names = [path.name for path in list_own(folder)] if folder.is_dir() else [folder.name] * folder.exists()
    others = [name for name in names if name not in known]
    if others:
        raise InputError(f"{folder} would be replaced, but {others[0]} is of no earlier export; name another --output.")


def export_graph(ensemble: Ensemble, arguments: EvaluationArguments, folder: Path) -> dict[str, Any]:
    """Fill a folder with the graph, its tokenizer, and how to prepare a row for it; returns how it was checked.

    `InputError` where the graph doesn't answer as the model does.
    """
    if len(ensemble.runs) > 1:
        raise InputError(
            f"Got --export {arguments.export} and the cross-validated run {ensemble.folder.path}, which has "
            f"{len(ensemble.runs)} models; export one of the runs in its members/."
        )
    run, split, size = ensemble.first, ensemble.choose_split(arguments.split), arguments.per_device_eval_batch_size
    rows = run.load_split_rows(split)
    refuse_several_pictures(rows, run.picture.image_size, "in an exported model; answer such rows with --predict")
    model = run.load_model()
    name = str(arguments.export)
    program, path = graphs.trace(run, model), folder / f"model.{SUFFIXES[name]}"
    exported: graphs.Answerer
    if name == "onnx":
        graphs.save_onnx(run, program, path)
        exported = graphs.open_onnx(path)
    else:
        torch.export.save(program, path)
        exported = torch.export.load(path).module()
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "inputs": graphs.list_inputs(run),
        "outputs": graphs.OUTPUTS,
        "split": split,
        "tolerance": TOLERANCE,
        "checks": check_answers(graphs.AnsweringModel(model), exported, run, rows, size),
    }
    if arguments.export_int8:
        graphs.quantize(path, folder / "model.int8.onnx")
        coarse = graphs.open_onnx(folder / "model.int8.onnx")
        report["int8"] = loss = measure_loss(exported, coarse, run, rows, size)
        score = next(iter(loss["int8"]))
        show(
            f"In int8 {loss['same_answers']:.1%} of the answers on {len(rows)} rows are the same; "
            f"{score} {loss['int8'][score]:.4f}, in float32 {loss['float32'][score]:.4f}."
        )
    save_preparation(run, rows.select(range(min(NUM_ROWS, len(rows)))), folder)
    return report


# By the word after --export: what fills a folder, and returns what is to be said of it in export.json.
EXPORTERS: dict[str, Callable[[Ensemble, EvaluationArguments, Path], dict[str, Any]]] = {
    "onnx": export_graph,
    "torch": export_graph,
    "transformers": export_folder,
}


def save_preparation(run: LoadedRun, rows: Dataset, folder: Path) -> None:
    """Write what makes a text and a picture the graph's inputs: tokenizer.json and preprocessing.json."""
    config, separator = run.config, f" {run.tokenizer.sep_token or ''} "
    tokenizer = _copy_tokenizer(run)
    texts = [text.replace(TEXT_SEPARATOR, separator) for text in rows["text"][:]]
    if tokenizer is not None and [tokenizer.encode(text).ids for text in texts] == list(rows["input_ids"][:]):
        write_text(folder / "tokenizer.json", tokenizer.to_str())
    else:
        logger.warning("The tokenizer of %s has code of its own, so there is no tokenizer.json.", run.folder.path)
    replacements = [[pattern.pattern, by] for pattern, by in REPLACEMENTS[config.text_cleaning]]
    write_json(
        folder / "preprocessing.json",
        {
            "task": config.task,
            "labels": run.label_names,
            "thresholds": config.thresholds,
            "replace": [*replacements, *([[r"[\s\0]+", " "]] if replacements else [])],
            "between_texts": separator,
            "picture": run.picture.to_dict(),
        },
    )


def _copy_tokenizer(run: LoadedRun) -> Tokenizer | None:
    """The run's tokenizer, cutting and padding by itself; None where it isn't one of the package tokenizers."""
    backend, given = getattr(run.tokenizer, "backend_tokenizer", None), run.tokenizer
    if backend is None:
        return None
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.enable_truncation(run.config.max_length, direction=given.truncation_side)
    tokenizer.enable_padding(pad_id=given.pad_token_id, pad_token=given.pad_token)
    return tokenizer
