"""What a check counts, by the names that --fail_on takes; nothing heavy is imported."""

from __future__ import annotations

PROBLEMS = {
    "missing": "rows without a text or a picture",
    "quarantine": "faults of rows",
    "encodings": "texts that are not UTF-8",
    "near_texts": "groups of nearly equal texts",
    "near_pictures": "groups of nearly equal pictures",
    "contradictions": "groups of twins, in text or in picture, with different labels",
    "leaks": "groups of twins in two parts of the split",
    "labels": "labels that may be wrong",
    "odd_pictures": "odd pictures",
}
