"""Making copies of the misjudged rows, and the list that holds them."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_utils.augment.arguments import KINDS, MANIFEST, AugmentArguments
from data_utils.augment.copies import Copy, CopyMaker, hash_file, read_text_keys
from data_utils.augment.manifest import VERSION, drop_staging, open_staging, publish, refuse_second_run, undo
from data_utils.augment.predictions import check_rows, choose_rows, find_predictions
from data_utils.console.progress import progress
from data_utils.console.screen import show
from data_utils.prepare.loading import find_text_encoding
from data_utils.prepare.pair_files import PairFolder, pair_folder
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import Record, read_records
from modeling.errors import InputError
from run_files.predictions_csv import read_predictions_csv


def augment(args: AugmentArguments) -> dict[str, Any]:
    """Make copies of the misjudged rows and add them to the data folder with a list and a manifest.

    Returns:
        The manifest: settings, predictions, what was skipped and why, and every copy.

    Raises:
        InputError: there are copies already, predictions and list don't fit, or no copy can be made.
    """
    data_dir, list_file = Path(args.data_dir), args.list_path
    folder = pair_folder(data_dir)
    refuse_second_run(data_dir)
    output = data_dir / args.output_file
    if output.exists():
        raise InputError(f"{output} exists and is no list of this program; choose another --output_file.")
    path = find_predictions(Path(args.predictions or ""))
    table = read_predictions_csv(path)
    quarantine = Quarantine()
    records = read_records(list_file, labels=table.label_names, quarantine=quarantine)
    known = {record.guid for record in records} | {entry.guid for entry in quarantine}
    check_rows(table, records, known)
    chosen = choose_rows(table, records, min_loss=args.min_loss, only=args.only)
    if not chosen:
        raise InputError(f"No row of {path} is to be copied; check --min_loss and --only.")
    maker = _open_maker(folder, records, args, taken=known)
    try:
        copies = _make_copies(maker, chosen, args)
        source = _extend_list(list_file.read_bytes(), copies)
    except BaseException:
        drop_staging(folder)
        raise
    manifest = {
        "version": VERSION,
        "settings": {name: value for name, value in asdict(args).items() if name not in ("data_dir", "undo")},
        "predictions": {"path": str(path), "sha256": hash_file(path), "rows": len(table.guids)},
        "output": {"name": args.output_file, "sha256": hashlib.sha256(source).hexdigest()},
        "chosen": len(chosen),
        "skipped": dict(maker.skipped),
        "copies": [asdict(copy) for copy in copies],
    }
    publish(data_dir, manifest, source)
    return manifest


def _open_maker(folder: Path, records: Sequence[Record], args: AugmentArguments, *, taken: set[str]) -> CopyMaker:
    files = PairFolder(folder)
    encoding = args.text_encoding or find_text_encoding(files.find(record).text for record in records)
    return CopyMaker(
        files,
        open_staging(folder),
        seed=args.seed,
        flip=args.flip,
        taken=taken,
        known_texts=frozenset(read_text_keys(files, records, encoding)),
        text_encoding=encoding,
    )


def _make_copies(maker: CopyMaker, chosen: Sequence[Record], args: AugmentArguments) -> list[Copy]:
    kinds = list(dict.fromkeys(args.kinds))
    shown = progress(chosen, description="Making copies", unit="rows", stays=False)
    copies = [copy for record in shown for kind in kinds for copy in maker.make(record, kind, args.copies)]
    if not copies:
        raise InputError(f"None of the {len(chosen)} chosen rows can be copied: {_describe_skipped(maker.skipped)}.")
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


def _describe_skipped(skipped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))


def take_away(args: AugmentArguments) -> None:
    """Undo what `augment` did, and say so."""
    removed, kept = undo(Path(args.data_dir))
    show(f"Deleted {removed} files and {MANIFEST}.")
    if kept:
        names = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        show(f"Kept, since they were changed after they had been made: {names}.", file=sys.stderr)


def report(manifest: dict[str, Any], args: AugmentArguments) -> None:
    """Say what was copied."""
    copies, settings = manifest["copies"], manifest["settings"]
    counts = {kind: sum(copy["kind"] == kind for copy in copies) for kind in KINDS}
    what = "misjudged" if settings["min_loss"] is None else f"of a loss of at least {settings['min_loss']}"
    show(f"{manifest['chosen']} of {manifest['predictions']['rows']} judged rows are {what}.")
    show(f"Added {counts['text']} copies with another text and {counts['image']} with another picture.")
    if manifest["skipped"]:
        show(f"Not copied: {_describe_skipped(manifest['skipped'])}.")
    show(f"Train on all with --train_file {args.output_file}; take the copies away with --undo.")
