"""The files that a prediction makes, and which files they may take the place of."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from data_utils.sources.quarantine import COLUMNS, DECODED_COLUMNS, ENCODINGS_FILE, QUARANTINE_FILE
from data_utils.system.schema import read_json
from evaluation.tasks.table_output import SUFFIXES, read_predictions
from modeling.errors import InputError

# By what those are known that are there only if there is something to be said in them: their header, or a key.
HEADERS = {QUARANTINE_FILE: list(COLUMNS), ENCODINGS_FILE: list(DECODED_COLUMNS)}
FIRST = ["guid", "prediction"]
KEYS = {"metrics.json": "majority_baseline", "contributions.json": "overall"}


class OutputFiles:
    """The files that a prediction makes: the output (guid,tag per row), and all others beside it.

    Args:
        output: path of the one that was asked for.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.probabilities = output, output.with_name(f"{output.stem}.probabilities.csv")
        self.optional = [output.with_name(f"{output.stem}.{ending}") for ending in (*HEADERS, *KEYS)]
        self.quarantine, self.encodings, self.metrics, self.contributions = self.optional

    def prepare(self, inputs: Iterable[Path]) -> None:
        """Make the output's folder.

        Raises:
            InputError: an output can't be written, or would take the place of anything but an earlier prediction, or of
                one of the `inputs`: files that are read, or that the run was made of.
        """
        read = {path.resolve() for path in inputs}
        try:
            for path in (self.output, self.probabilities, *self.optional):
                if path.exists() and not path.is_file():
                    raise InputError(f"Cannot write {path}, which is not a plain file; give --output another name.")
                if path.resolve() in read or (path.exists() and path.stat().st_size and not self._is_ours(path)):
                    raise InputError(
                        f"--output {self.output} would overwrite {path}, which is read here, or not of an earlier "
                        f"prediction (guid,tag rows, with the same ones in {self.probabilities.name} beside them); "
                        "give it another name, or move that file away."
                    )
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):  # found out now, not after the whole prediction
                pass
        except OSError as error:
            raise InputError(f"Cannot write into {self.output.parent} ({error}); give another --output.") from error

    def _is_ours(self, path: Path) -> bool:
        """Whether an earlier prediction wrote this file: it begins, or is keyed, as ours does."""
        ending = path.name.removeprefix(f"{self.output.stem}.")
        with suppress(InputError, OSError, ValueError, csv.Error):
            if ending in KEYS:
                return KEYS[ending] in read_json(path, dict[str, Any])
            if ending in HEADERS:
                return _read_start(path)[:1] == [HEADERS[ending]]
            header, *known = _read_start(self.probabilities)
            if path != self.probabilities and path.suffix.lower() in SUFFIXES and header[:2] == FIRST:
                with suppress(InputError, OSError, ValueError, csv.Error):
                    if known and read_predictions(path, len(known)) == [row[1] for row in known]:
                        return True
            # The output begins with the rows of the probabilities; it may have no header, and so one row more.
            rows, answers = _read_start(path), [row[:2] for row in known]
            is_scored = header[:2] == FIRST and "".join(header[2:3] or ["prob_"]).startswith("prob_")
            is_answered = bool(answers) and answers in (rows[1:], rows[: len(answers)])
            return is_scored and (path == self.probabilities or is_answered)
        return False


def _read_start(path: Path) -> list[list[str]]:
    """The first rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(islice(csv.reader(file), 4))
