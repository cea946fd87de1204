"""All that is checked before a training, as one value: figures, and tables of the rows that they are about."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_utils.prepare.pair_files import CellReader
from data_utils.prepare.pairs import Pairs
from data_utils.quality.counts import count_headers, count_rows, read_headers
from data_utils.quality.labels import Suspect, ask_probe, find_suspects, require_cleanlab
from data_utils.quality.odd import find_odd
from data_utils.quality.problems import PROBLEMS
from data_utils.quality.twins import (
    KINDS,
    Twins,
    bound_reader,
    describe_twins,
    find_leaks,
    find_twins,
)
from data_utils.sources.label_forms import UNLABELLED, name_labels
from data_utils.splits.split_file import Split
from modeling.errors import InputError

ROW = ("guid", "label", "part", "text")  # what every table says of a row, behind what it is about
Row = tuple[str, str, str, str]
Table = list[list[Any]]  # the header first


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        figures: of plain values, as check.json holds them.
        tables: by the name of their CSV file.
        suspects: rows whose label may be wrong, the most doubtful first.
        leaks: rows of each group that stands in two parts.
        odd: what is odd about the pictures of some rows.
        twins: which rows are twins.
        names: of each row its label, null without one.
        parts: of each row the part that it is in, "" for none.
    """

    figures: dict[str, Any]
    tables: dict[str, Table]
    suspects: Sequence[Suspect]
    leaks: Sequence[Sequence[int]]
    odd: Mapping[int, Sequence[str]]
    twins: Twins
    names: Sequence[str]
    parts: Sequence[str]


def check_pairs(
    pairs: Pairs,
    labels: Sequence[str],
    *,
    split: Split | None = None,
    labels_by: Literal["probe", "none"] = "probe",
    answers: Mapping[str, NDArray[np.float64]] | None = None,
    read_cell: CellReader | None = None,
    seed: int = 42,
) -> Check:
    """Check the rows of `load_pairs`; their pictures are read from the cache, and of the files only their headers.

    Args:
        labels: the C classes, in the order of their numbers.
        split: whose parts should share no twins; by default the parts that the data declare.
        labels_by: what answers for rows that it wasn't fitted on, so that wrong labels are found.
        answers: the same by guid, (C,) probabilities by models that had not seen the row, in place of a probe's.
        read_cell: of the source, for pictures that stand in a table.
        seed: of the probe's folds.

    Raises:
        InputError: label errors are asked for, and cleanlab is not installed.
    """
    start = time.perf_counter()
    if labels_by != "none":
        require_cleanlab()  # before the minutes of all else
    columns = pairs.dataset.select_columns(["guid", "label", "text"]).with_format(None)[:]
    guids, texts, numbers = columns["guid"], columns["text"], np.asarray(columns["label"])
    names, is_classes = name_labels(numbers, labels), numbers.dtype.kind == "i"
    split = split or _declared(pairs, guids)
    part_of = {guid: part for part, members in split.parts.items() for guid in members} if split else {}
    parts = [part_of.get(guid, "") for guid in guids]
    said = names if is_classes or numbers.ndim > 1 else [UNLABELLED] * len(names)  # numbers that differ say nothing
    twins, headers = find_twins(pairs.dataset, said), read_headers(pairs.pictures, read_cell)
    odd = find_odd(pairs.dataset, headers)
    leaks = find_leaks(twins.together, guids, split) if split else []
    by, suspects = _judge_labels(pairs, numbers, len(labels), twins, labels_by, answers, seed)
    figures = {
        "problems": {},
        "counts": count_rows(pairs, labels),
        "pictures": count_headers(headers),
        "twins": describe_twins(twins),
        "readers": {kind: bound_reader(twins.groups[kind], numbers, len(labels)) for kind in KINDS if is_classes},
        "labels": by,
        "odd": dict(Counter(kind for kinds in odd.values() for kind in kinds).most_common()),
        "parts": split and {part: len(members) for part, members in split.parts.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }
    figures["problems"] = _count_problems(figures, len(pairs.quarantine), len(leaks), len(suspects), len(odd))
    named = list(zip(guids, names, parts, texts, strict=True))
    sizes = [(header or ("", ""))[:2] for header in headers]
    tables: dict[str, Table] = {
        "near_texts": _tabulate_twins(twins, "text", named),
        "near_pictures": _tabulate_twins(twins, "image", named),
        "labels": _tabulate_suspects(suspects, named, labels),
        "odd_pictures": [
            ["odd", "width", "height", *ROW],
            *([" ".join(odd[row]), *sizes[row], *named[row]] for row in odd),
        ],
        "leaks": [["group", *ROW], *([number, *named[row]] for number, rows in enumerate(leaks, 1) for row in rows)],
    }
    return Check(figures, tables, suspects, leaks, odd, twins, names, parts)


def _count_problems(figures: Mapping[str, Any], faults: int, leaks: int, suspects: int, odd: int) -> dict[str, int]:
    """By the names of `PROBLEMS`."""
    counts, twins = figures["counts"], figures["twins"]
    found = (sum(counts["without"].values()), faults, sum(counts["encodings"].values()))
    near = (twins["text"]["groups"], twins["image"]["groups"])
    contradicting = twins["text"]["contradicting"] + twins["image"]["contradicting"]
    return dict(zip(PROBLEMS, (*found, *near, contradicting, leaks, suspects, odd), strict=True))


def _declared(pairs: Pairs, guids: Sequence[str]) -> Split | None:
    """The parts that the data declare, as they stand; None where they declare none."""
    if not pairs.declared:
        return None
    found: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for guid, part in zip(guids, pairs.parts, strict=True):
        found[part or "train"].append(guid)
    return Split(tuple(found["train"]), tuple(found["val"]), None, None, tuple(found["test"]))


def _judge_labels(
    pairs: Pairs,
    numbers: NDArray[Any],
    num_classes: int,
    twins: Twins,
    labels_by: str,
    answers: Mapping[str, NDArray[np.float64]] | None,
    seed: int,
) -> tuple[dict[str, Any], list[Suspect]]:
    """By what labels were judged, for how many rows, how often that agrees with them; and the suspects."""
    if numbers.dtype.kind != "i":
        return {"by": None, "reason": "they are judged where a row has one class"}, []
    if answers is not None:
        unknown = np.full(num_classes, np.nan)
        values = np.stack([answers.get(guid, unknown) for guid in pairs.dataset.select_columns("guid")["guid"]])
    elif labels_by == "none":
        return {"by": None, "reason": "they were left out"}, []
    else:
        try:
            values = ask_probe(pairs.dataset, numbers, twins, num_classes=num_classes, seed=seed)
        except InputError as error:
            return {"by": None, "reason": str(error)}, []
    suspects = find_suspects(numbers, values, twins)
    asked = (numbers >= 0) & np.isfinite(values).all(axis=1)
    agrees = float((values[asked].argmax(axis=1) == numbers[asked]).mean()) if asked.any() else None
    by = "probe" if answers is None else "predictions"
    return {"by": by, "rows": int(asked.sum()), "accuracy": agrees, "suspects": len(suspects)}, suspects


def _tabulate_twins(twins: Twins, side: str, named: Sequence[Row]) -> Table:
    """The rows of each group with how near the nearest row is that they are paired with; 1 is equal."""
    pairs, best = twins.pairs[side], np.zeros(len(named), np.float32)
    for ends in (pairs.first, pairs.second):
        np.maximum.at(best, ends, pairs.similarity)
    table: Table = [["group", "similarity", "contradicts", *ROW]]
    for number, rows in enumerate(twins.members(side), start=1):
        differ = "yes" if twins.differ(rows) else "no"
        table += [[number, f"{best[row]:.4f}", differ, *named[row]] for row in rows]
    return table


def _tabulate_suspects(suspects: Sequence[Suspect], named: Sequence[Row], labels: Sequence[str]) -> Table:
    table: Table = [["suggested", "probability", "found_by", "twin", "twin_label", *ROW]]
    for each in suspects:
        found_by = " ".join(name for name, is_so in (("model", each.by_model), ("twin", each.by_twin)) if is_so)
        twin = ("", "") if each.twin is None else named[each.twin][:2]
        table.append([labels[each.suggested], f"{each.confidence:.4f}", found_by, *twin, *named[each.row]])
    return table
