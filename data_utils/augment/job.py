"""Making copies of the misjudged rows, and the list that holds them."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from data_utils.augment.arguments import KINDS, MANIFEST, AugmentArguments
from data_utils.augment.copies import Copy, CopyMaker, read_text
from data_utils.augment.manifest import VERSION, hash_file, open_staging, publish, undo
from data_utils.console.progress import progress
from data_utils.console.screen import show
from data_utils.prepare.columns import NO_LABEL_ID
from data_utils.prepare.loading import find_text_encoding
from data_utils.prepare.pair_files import PairFolder, pair_folder
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import Record, Rows, read_records
from data_utils.system.files import remove
from modeling.errors import InputError
from modeling.text import text_key
from run_files.folds_folder import OUT_OF_FOLD_FILE
from run_files.predictions_csv import PredictionTable, read_predictions_csv

logger = logging.getLogger(__name__)
_VALIDATION_FILE = "predictions_val.csv"
_SMALLEST = 1e-12


def augment(args: AugmentArguments) -> None:
    """Make copies of the misjudged rows, add them to the data folder with a list and a manifest, and say so.

    Raises:
        InputError: there are copies already, predictions and list don't fit, or no copy can be made.
    """
    data_dir, list_file = Path(args.data_dir), args.list_path
    staging = open_staging(data_dir)
    try:
        output = data_dir / args.output_file
        if output.exists():
            raise InputError(f"{output} exists and is no list of this program; choose another --output_file.")
        path = _find_predictions(Path(args.predictions or ""))
        table = read_predictions_csv(path)
        quarantine = Quarantine()
        records = read_records(list_file, labels=table.label_names, quarantine=quarantine)
        taken = {*records.guids} | {entry.guid for entry in quarantine}
        chosen = _choose_rows(table, records, taken, min_loss=args.min_loss, only=args.only)
        if not chosen:
            raise InputError(f"No row of {path} is to be copied; check --min_loss and --only.")
        maker = _open_maker(staging, records, args, taken)
        copies = _make_copies(maker, chosen, args)
        source = _extend_list(list_file.read_bytes(), copies)
    except BaseException:
        remove(staging)
        raise
    settings = {name: value for name, value in asdict(args).items() if name not in ("data_dir", "undo")}
    manifest = {
        "version": VERSION,
        "settings": settings,
        "predictions": {"path": str(path), "sha256": hash_file(path), "rows": len(table.guids)},
        "output": {"name": args.output_file, "sha256": hashlib.sha256(source).hexdigest()},
        "chosen": len(chosen),
        "skipped": dict(maker.skipped),
        "copies": [asdict(copy) for copy in copies],
    }
    publish(data_dir, manifest, source)
    what = "misjudged" if args.min_loss is None else f"of a loss of at least {args.min_loss}"
    show(f"{len(chosen)} of {len(table.guids)} judged rows are {what}.")
    counts = {kind: sum(copy.kind == kind for copy in copies) for kind in KINDS}
    show(f"Added {counts['text']} copies with another text and {counts['image']} with another picture.")
    if maker.skipped:
        show(f"Not copied: {_describe_skipped(maker)}.")
    show(f"Train on all with --train_file {args.output_file}; take the copies away with --undo.")


def _find_predictions(path: Path) -> Path:
    """The table that `--predictions` means: a file itself, or the out-of-fold table of a folds run.

    Raises:
        InputError: nothing is there, or it is the folder of another run.
    """
    if path.name == _VALIDATION_FILE and path.is_file():
        logger.warning(
            "%s holds the validation rows of one run: their copies serve training only where a later split holds out "
            "other rows.",
            path,
        )
    found = path / OUT_OF_FOLD_FILE if path.is_dir() else path
    if not found.is_file():
        raise InputError(
            f"Got --predictions {path}: {found} does not exist. The predictions of a plain run are of its validation "
            "rows, of which no copies should be made for it, or of rows it was trained on, which hide its errors; "
            "predict rows the model had not seen with `train.py --folds 5`, and pass that run."
        )
    return found


def _choose_rows(
    table: PredictionTable,
    records: Rows,
    known: Collection[str],
    *,
    min_loss: float | None,
    only: Sequence[str] | None,
) -> list[Record]:
    """The rows to be copied, in the list's order.

    Args:
        table: the predictions.
        records: the labelled rows of the list.
        known: every guid of the list.
        min_loss: take every row of at least this loss, right or wrong, instead of the misjudged ones.
        only: labels of the rows that may be taken; all by default.

    Raises:
        InputError: the predictions aren't of the list's labelled rows, with an example of each fault, or a label of
            `only` is none of theirs.
    """
    unknown = [label for label in only or () if label not in table.label_names]
    if unknown:
        raise InputError(f"Got --only {' '.join(unknown)}; the predictions know {', '.join(table.label_names)}.")
    label_of = dict(zip(records.guids, records.labels, strict=True))
    faults: dict[str, list[str]] = {"not in the list": [], "not labelled": [], "labelled otherwise": []}
    chosen = set()
    for guid, label, answer, values in zip(table.guids, table.labels, table.answers, table.probabilities, strict=True):
        if guid not in known:
            faults["not in the list"].append(f"'{guid}'")
        elif guid not in label_of or label == NO_LABEL_ID:
            faults["not labelled"].append(f"'{guid}'")
        elif table.label_names[label] != label_of[guid]:
            found = f"'{guid}' ({table.label_names[label]!r}, in the list {label_of[guid]!r})"
            faults["labelled otherwise"].append(found)
        elif answer != label if min_loss is None else -math.log(max(values[label], _SMALLEST)) >= min_loss:
            chosen.add(guid)
    told = [f"{len(found)} are {fault}, like {found[0]}" for fault, found in faults.items() if found]
    if told:
        raise InputError(
            f"The predictions are not of the labelled rows of the list: of {len(table.guids)} rows {'; '.join(told)}. "
            "Check --predictions, --data_dir and --train_file."
        )
    return [record for record in records if record.guid in chosen and (not only or record.label in only)]


def _open_maker(staging: Path, records: Rows, args: AugmentArguments, taken: set[str]) -> CopyMaker:
    folder = PairFolder(pair_folder(Path(args.data_dir)))
    files = [folder.find(guid).text for guid in records.guids]
    encoding = args.text_encoding or find_text_encoding(files)
    known_texts = frozenset(text_key(read_text(file, encoding) or "") for file in files)
    return CopyMaker(folder, staging, args.seed, args.flip, taken, known_texts, encoding)


def _make_copies(maker: CopyMaker, chosen: Sequence[Record], args: AugmentArguments) -> list[Copy]:
    kinds = list(dict.fromkeys(args.kinds))
    shown = progress(chosen, description="Making copies", unit="rows", stays=False)
    copies = [copy for record in shown for kind in kinds for copy in maker.make(record, kind, args.copies)]
    if not copies:
        raise InputError(f"None of the {len(chosen)} chosen rows can be copied: {_describe_skipped(maker)}.")
    return copies


def _extend_list(source: bytes, copies: Sequence[Copy]) -> bytes:
    """The list with a row for each copy after its own rows, in its own encoding and with its own line ends."""
    text, encoding = decode_text(source)
    found = re.search(r"\r\n|\n|\r", text)
    line_end = found.group() if found else "\n"
    rows = io.StringIO()
    if not text.endswith(line_end):
        rows.write(line_end)
    csv.writer(rows, lineterminator=line_end).writerows((copy.guid, copy.label) for copy in copies)
    return source + rows.getvalue().encode(encoding)


def _describe_skipped(maker: CopyMaker) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(maker.skipped.items()))


def take_away(args: AugmentArguments) -> None:
    """Undo what `augment` did, and say so."""
    removed, kept = undo(Path(args.data_dir))
    show(f"Deleted {removed} files and {MANIFEST}.")
    if kept:
        names = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        show(f"Kept, since they were changed after they had been made: {names}.", file=sys.stderr)
