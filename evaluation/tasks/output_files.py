"""The files that a prediction makes, and which files they may take the place of."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_utils.sources.quarantine import COLUMNS, DECODED_COLUMNS, ENCODINGS_FILE
from modeling.errors import InputError

_PROBED_ROWS = 3


@dataclass(frozen=True)
class OutputFiles:
    """The files that a prediction makes, all beside the output.

    Attributes:
        output: guid,tag per row.
    """

    output: Path

    @property
    def probabilities(self) -> Path:
        """guid, prediction and a probability per class."""
        return self._beside("probabilities.csv")

    @property
    def quarantine(self) -> Path:
        """What was wrong with which row; written only if something was."""
        return self._beside("quarantine.csv")

    @property
    def encodings(self) -> Path:
        """Which texts aren't UTF-8, and how they were read; written only if some aren't."""
        return self._beside(ENCODINGS_FILE)

    @property
    def contributions(self) -> Path:
        """What text and picture contribute on the whole; written only if asked for."""
        return self._beside("contributions.json")

    @property
    def metrics(self) -> Path:
        """Figures of the rows that have a label; written only if some have."""
        return self._beside("metrics.json")

    def prepare(self, inputs: Iterable[Path]) -> None:
        """Make the output's folder.

        Args:
            inputs: files that are read, or that the run was made of, which nothing may overwrite.

        Raises:
            InputError: an output can't be written, or would take the place of anything but an earlier prediction.
        """
        try:
            self._refuse_inputs({path.resolve() for path in inputs})
            self._refuse_foreign()
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):  # found out now, not after the whole prediction
                pass
        except OSError as error:
            raise InputError(f"Cannot write into {self.output.parent} ({error}); give another --output.") from error

    def _refuse_inputs(self, read: Container[Path]) -> None:
        for path in (
            self.output,
            self.probabilities,
            self.quarantine,
            self.encodings,
            self.metrics,
            self.contributions,
        ):
            if path.resolve() in read:
                raise InputError(f"--output {self.output} would overwrite {path.resolve()}; give it another name.")
            if path.exists() and not path.is_file():
                raise InputError(f"Cannot write {path}, which is not a plain file; give --output another name.")

    def _refuse_foreign(self) -> None:
        """`InputError` for a file that is there and wasn't written by a prediction; an empty one holds nothing."""
        is_ours = {
            self.output: self._is_prediction,
            self.probabilities: lambda: _is_probabilities(_read_start(self.probabilities)),
            self.quarantine: lambda: _read_start(self.quarantine)[:1] == [list(COLUMNS)],
            self.encodings: lambda: _read_start(self.encodings)[:1] == [list(DECODED_COLUMNS)],
            self.metrics: lambda: _is_object(self.metrics, "confusion_matrix"),
            self.contributions: lambda: _is_object(self.contributions, "overall"),
        }
        for path, check in is_ours.items():
            if path.exists() and path.stat().st_size and not check():
                raise InputError(
                    f"--output {self.output} would overwrite {path}, which is not of an earlier prediction (guid,tag "
                    f"rows, with the same ones in {self.probabilities.name} beside them); give it another name, or "
                    "move that file away."
                )

    def _is_prediction(self) -> bool:
        """Whether the output begins with the rows that the probabilities beside it begin with, header or not."""
        if not self.probabilities.is_file():
            return False
        rows, known = _read_start(self.output), _read_start(self.probabilities)
        answers = [row[:2] for row in known[1:]]
        # The probabilities have a header, and so one row less than was read of an output that has none.
        return _is_probabilities(known) and bool(answers) and answers in (rows[1:], rows[: len(answers)])

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(f"{self.output.stem}.{ending}")


def _read_start(path: Path) -> list[list[str]]:
    """The first rows of a file; none of one that isn't a table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(islice(csv.reader(file), _PROBED_ROWS + 1))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _is_probabilities(rows: list[list[str]]) -> bool:
    header = rows[0] if rows else []
    return header[:2] == ["guid", "prediction"] and any(name.startswith("prob_") for name in header[2:])


def _is_object(path: Path, key: str) -> bool:
    """Whether it is JSON of an object with this key, or of an empty one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and (not content or key in content)
