"""A check as a page shows it: its figures, the first rows of its tables, and their pictures small.

The template `data_check.html` of data_utils/page takes what `build_view` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from markupsafe import Markup

from data_utils.near.pictures import read_pixels
from data_utils.page.shown import Figure, encode_thumbnail
from data_utils.quality.check import Check
from data_utils.quality.problems import PROBLEMS
from data_utils.quality.twins import KINDS

SIDE = 80  # pixels of a small picture
_TITLES = {"text": "text", "image": "picture", "both": "text and picture"}
_HEADS = ["row", "picture", "text", "label"]
_MORE_HEADS = {
    "contradictions": ["group", "share"],
    "leaks": ["group", "part"],
    "suspects": ["rather", "probability of the label", "twin"],
    "odd": ["odd"],
}
_TITLES_OF_TABLES = {
    "contradictions": (
        "Twins with different labels",
        "Rows of nearly the same text, picture or both. Where only one side is shared, the other may tell why.",
    ),
    "leaks": ("Twins in two parts of the split", "What is judged on them was seen in training."),
    "suspects": (
        "Labels that may be wrong",
        "Confident learning on answers for rows that were not trained on, and twins that are labelled otherwise; "
        "the most doubtful first. Look before you mend: many of them are hard rows, rightly labelled.",
    ),
    "odd": ("Odd pictures", "Found by brightness, sharpness and colours."),
}
_PICTURE = Markup('<img class="thumbnail" src="{}" alt="picture of {}" width="{}" decoding="async">')


@dataclass(frozen=True)
class PageTable:
    """A table of a page; `total` counts all its rows, of which `rows` has the first."""

    name: str
    title: str
    words: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    total: int


def build_view(check: Check, dataset: Dataset, labels: Sequence[str], *, num_rows: int) -> dict[str, Any]:
    """What the template takes; `dataset` is that of the pairs that were checked."""
    columns = dataset.select_columns(["guid", "text"]).with_format(None)[:]
    guids, texts = columns["guid"], columns["text"]
    listed = _list_rows(check, labels, guids)
    shown = {name: rows[:num_rows] for name, rows in listed.items()}
    pictures = _draw_pictures(dataset, {row for rows in shown.values() for row, *_ in rows}, guids)
    tables = [
        PageTable(
            *(name, *_TITLES_OF_TABLES[name], [*_HEADS, *_MORE_HEADS[name]]),
            [[guids[row], pictures.get(row, ""), texts[row], check.names[row], *cells] for row, *cells in rows],
            len(listed[name]),
        )
        for name, rows in shown.items()
        if rows
    ]
    return check.figures | {
        "tables": tables,
        "problem_titles": PROBLEMS,
        "twin_rows": [[_TITLES[kind], *check.figures["twins"][kind].values()] for kind in KINDS],
        "reader_rows": _list_readers(check),
        "count_tables": _list_counts(check),
    }


def _list_rows(check: Check, labels: Sequence[str], guids: Sequence[str]) -> dict[str, list[list[Any]]]:
    """Of each table its rows: a row's number, and the cells of `_MORE_HEADS`."""
    twins = [(kind, rows) for kind in ("both", "text", "image") for rows in _contradicting(check, kind)]
    return {
        "contradictions": [
            [row, number, _TITLES[kind]] for number, (kind, rows) in enumerate(twins, 1) for row in rows
        ],
        "leaks": [[row, number, check.parts[row]] for number, rows in enumerate(check.leaks, 1) for row in rows],
        "suspects": [
            [each.row, labels[each.suggested], Figure(each.confidence), _describe_twin(each.twin, check, guids)]
            for each in check.suspects
        ],
        "odd": [[row, ", ".join(kinds)] for row, kinds in check.odd.items()],
    }


def _contradicting(check: Check, kind: str) -> Iterable[Sequence[int]]:
    """Groups with different labels; those of one side without the rows' groups that share both."""
    both = {tuple(rows) for rows in check.twins.members("both")} if kind != "both" else set()
    return [rows for rows in check.twins.members(kind) if tuple(rows) not in both and check.twins.differ(rows)]


def _draw_pictures(dataset: Dataset, rows: set[int], guids: Sequence[str]) -> dict[int, Markup]:
    """The first picture of each of some rows."""
    order, found = sorted(rows), dict[int, Markup]()
    for place, _, pixels in read_pixels(dataset.select(order)):
        row = order[place]
        if row not in found:
            found[row] = _PICTURE.format(encode_thumbnail(pixels, SIDE), guids[row][:80], SIDE)
    return found


def _describe_twin(twin: int | None, check: Check, guids: Sequence[str]) -> str:
    return "" if twin is None else f"{guids[twin][:80]}: {check.names[twin]}"


def _list_readers(check: Check) -> list[list[Any]]:
    found = []
    for kind, reader in check.figures["readers"].items():
        if reader is not None:
            disagreement, accuracy = (
                Figure(reader[name]["value"], reader[name]["interval"]) for name in ("disagreement", "accuracy")
            )
            found.append([_TITLES[kind], reader["groups"], reader["rows"], disagreement, accuracy])
    return found


def _list_counts(check: Check) -> list[tuple[str, list[list[Any]]]]:
    """Titles and rows of small tables: a name, a count, and its share of the rows."""
    counts, pictures = check.figures["counts"], check.figures["pictures"]
    total = max(1, counts["rows"])
    kinds = {
        "Labels": counts["labels"],
        "Without a text or picture": counts["without"],
        "Faults of rows (quarantine.csv)": counts["quarantine"],
        "Texts that are not UTF-8": counts["encodings"],
        "Scripts": counts["scripts"],
        "Formats of pictures": pictures["formats"],
        "Modes of pictures": pictures["modes"],
        "Odd pictures": check.figures["odd"],
    }
    return [
        (title, [[name, count, Figure(count / total)] for name, count in found.items()])
        for title, found in kinds.items()
        if found
    ]
