"""The files that a prediction makes, and which files they may take the place of."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from data_utils.sources.quarantine import COLUMNS, DECODED_COLUMNS, ENCODINGS_FILE, QUARANTINE_FILE
from modeling.errors import InputError

_PROBED_ROWS = 3


class OutputFiles:
    """The files that a prediction makes, all beside the output.

    Attributes:
        output: guid,tag per row.
        probabilities: guid, prediction and a probability per class.
        quarantine, encodings: what was wrong with which row, and which texts aren't UTF-8; only if there is any.
        metrics, contributions: figures of the labelled rows, and of both modalities; only if there are any.
    """

    def __init__(self, output: Path) -> None:
        endings = ("probabilities.csv", QUARANTINE_FILE, ENCODINGS_FILE, "metrics.json", "contributions.json")
        self.output = output
        self.probabilities, *self.optional = (output.with_name(f"{output.stem}.{ending}") for ending in endings)
        self.quarantine, self.encodings, self.metrics, self.contributions = self.optional

    def prepare(self, inputs: Iterable[Path]) -> None:
        """Make the output's folder.

        Args:
            inputs: files that are read, or that the run was made of, which nothing may overwrite.

        Raises:
            InputError: an output can't be written, or would take the place of anything but an earlier prediction.
        """
        read = {path.resolve() for path in inputs}
        try:
            for path in (self.output, self.probabilities, *self.optional):
                if path.resolve() in read:
                    raise InputError(f"--output {self.output} would overwrite {path.resolve()}; give it another name.")
                if path.exists() and not path.is_file():
                    raise InputError(f"Cannot write {path}, which is not a plain file; give --output another name.")
                if path.exists() and path.stat().st_size and not self._is_ours(path):
                    raise InputError(
                        f"--output {self.output} would overwrite {path}, which is not of an earlier prediction "
                        f"(guid,tag rows, with the same ones in {self.probabilities.name} beside them); give it "
                        "another name, or move that file away."
                    )
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):  # found out now, not after the whole prediction
                pass
        except OSError as error:
            raise InputError(f"Cannot write into {self.output.parent} ({error}); give another --output.") from error

    def _is_ours(self, path: Path) -> bool:
        """Whether an earlier prediction wrote this file: it begins, or is keyed, as ours does."""
        if path in (self.metrics, self.contributions):
            return _has_key(path, "confusion_matrix" if path == self.metrics else "overall")
        rows = _read_start(path)
        if path in (self.quarantine, self.encodings):
            return rows[:1] == [list(COLUMNS if path == self.quarantine else DECODED_COLUMNS)]
        header, *known = _read_start(self.probabilities) or [[]]
        if header[:2] != ["guid", "prediction"] or not any(name.startswith("prob_") for name in header[2:3]):
            return False
        # The output begins with the rows of the probabilities; it may have no header, and so one row more was read.
        answers = [row[:2] for row in known]
        return path == self.probabilities or (bool(answers) and answers in (rows[1:], rows[: len(answers)]))


def _read_start(path: Path) -> list[list[str]]:
    """The first rows of a file; none of one that isn't a table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(islice(csv.reader(file), _PROBED_ROWS + 1))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _has_key(path: Path, key: str) -> bool:
    """Whether it is JSON of an object with this key, or of an empty one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and (not content or key in content)
