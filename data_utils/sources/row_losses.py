"""Large losses: where much of the data is lost for one reason, training stops and says what would mend it."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from data_utils.console.screen import printable
from data_utils.sources.label_forms import VALUE
from data_utils.sources.quarantine import Action, Entry, Fault, Reason
from modeling.errors import InputError

logger = logging.getLogger(__name__)
# Shares of the rows: lost for one reason, and without a text or a picture that the head reads.
MAX_LOST, MAX_ABSENT = 0.1, 0.5
# Characters of a label, of a fault and of the flag that names all labels, in one sentence; and labels that are listed.
_SHOWN, _SHOWN_DETAIL, _LONGEST_FLAG, _SHOWN_LABELS = 30, 200, 800, 20
_REMEDIES = {
    Reason.NO_LABEL: "Label them, or keep them for --predict.",
    Reason.MALFORMED_ROW: "Mend these rows.",
    Reason.INVALID_GUID: "Write guids as the files are called, without folder and ending.",
    Reason.DUPLICATE_GUID: "Write each guid once.",
}
_OTHER_NAMES = (
    " Write the guids as the files are called: spreadsheets drop leading zeros and round long numbers, unless the "
    "column is kept as text."
)


@dataclass(frozen=True)
class LossRule:
    """Judges losses of one kind of data: over a tenth of the rows lost for one reason is too much.

    Attributes:
        source: what the rows come from, for messages.
        needs: of "text" and "image" those that the head reads.
        stops: whether large losses end the program (`InputError`), or are told as a warning.
    """

    source: str
    needs: Collection[str]
    stops: bool

    def check_rows(
        self, entries: Sequence[Entry], num_rows: int, *, found: Counter[str], labels: Sequence[str]
    ) -> None:
        """Rows that a list, or a part of shards, loses before a file is looked at; `found` counts them by their label.

        Faults of texts and pictures, and repeated rows of a prediction, don't count.
        """
        counts = Counter(entry.reason for entry in entries if entry.action != Action.REPEATED)
        self.check_labels(counts[Reason.UNKNOWN_LABEL], num_rows, found=found, labels=labels)
        for reason, remedy in _REMEDIES.items():
            if _is_large(counts[reason], num_rows):
                first = next(entry for entry in entries if entry.reason == reason)
                self._tell(
                    f"{counts[reason]} of {num_rows} rows of {self.source} can't be used ({reason}); row {first.row}, "
                    f"{printable(repr(first.guid), _SHOWN)}: {printable(first.detail, _SHOWN_DETAIL)}. {remedy}"
                )

    def check_labels(self, num_lost: int, num_rows: int, *, found: Counter[str], labels: Sequence[str]) -> None:
        """As `check_rows` for labels alone, of which `num_lost` rows carry others than those that are allowed."""
        if _is_large(num_lost, num_rows):
            self._tell(
                f"{num_lost} of {num_rows} rows of {self.source} carry a label that was not asked for. "
                f"{describe_labels(found, labels, with_flag=self.stops)}"
            )

    def check_files(
        self, guids: Sequence[str], texts: Sequence[Fault | None], pictures: Sequence[Fault | None]
    ) -> None:
        """Rows without text and picture, and over half without one that the head reads, by what is wrong with each."""
        without = {
            side: {row: fault for row, fault in enumerate(faults) if fault}
            for side, faults in (("text", texts), ("image", pictures))
        }
        both = [row for row in without["text"] if row in without["image"]]
        if _is_large(len(both), len(guids)):
            faults = [(guids[row], without[side][row]) for row in both for side in without]
            what, remedy = "neither a text nor a picture", "Check the rows, and --data_dir (of a table --image_dir)."
            self._tell(f"{len(both)} of {len(guids)} rows have {what} {_describe(faults)} {remedy}")
            return
        for side, word, other in (("text", "text", "image_only"), ("image", "picture", "text_only")):
            rows = without[side]
            if side in self.needs and len(rows) > MAX_ABSENT * len(guids):
                described = _describe([(guids[row], fault) for row, fault in rows.items()])
                remedy = f"Mend that, or take --fusion {other}."
                self._tell(f"{len(rows)} of {len(guids)} rows have no {word} {described} {remedy}")

    def _tell(self, message: str) -> None:
        if self.stops:
            raise InputError(f"{message} To train all the same on what there is: --allow_data_loss.")
        logger.warning("%s", message)


def _is_large(num_lost: int, num_rows: int) -> bool:
    """Whether so many rows are a large loss; one row alone never is, however few there are."""
    return num_lost > max(MAX_LOST * num_rows, 1)


def describe_labels(found: Counter[str], labels: Sequence[str], *, with_flag: bool = True) -> str:
    """The labels that there are, with their rows, and the very flag that asks for them, in the order of `labels`."""
    shown = ", ".join(
        f"{printable(repr(label), _SHOWN)} ({count})" for label, count in found.most_common(_SHOWN_LABELS)
    )
    more = f" and {len(found) - _SHOWN_LABELS} others" if len(found) > _SHOWN_LABELS else ""
    if list(labels) == [VALUE]:
        return f"Labels found, with their rows: {shown}{more}; a regression takes finite numbers."
    text = f"Labels found, with their rows: {shown}{more}; allowed: {', '.join(labels)}."
    if not with_flag:
        return text
    places = {label.casefold(): place for place, label in enumerate(labels)}
    flag = shlex.join(sorted(found, key=lambda label: (places.get(label.casefold(), len(places)), label)))
    if len(found) == 1 or len(flag) > _LONGEST_FLAG or any("," in label or label.startswith("--") for label in found):
        return f"{text} If these are classes, name them with --labels."
    return f"{text} To ask for all of them: `--labels {flag}`."


def _describe(faults: Sequence[tuple[str, Fault]]) -> str:
    """Counts of guids' faults by reason, and one of them, rather one that a file of another name may explain."""
    counts = Counter(fault.reason for _, fault in faults)
    most = counts.most_common(1)[0][0]
    guid, fault = max(faults, key=lambda each: (each[1].hint is not None, each[1].reason == most))
    why = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    shown = f"{printable(repr(guid), _SHOWN)}: {printable(str(fault), _SHOWN_DETAIL)}"
    return f"that can be used ({why}); {shown}.{_OTHER_NAMES if fault.hint and fault.hint.is_other_name else ''}"
