"""Whether a model errs more in some kinds of rows than in the others. Legend: N rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, fisher_exact, mannwhitneyu

from data_utils.page.shown import Figure
from data_utils.quality.counts import find_script
from evaluation.scores.metrics import Floats
from evaluation.scores.paired_tests import ALPHA, adjust_holm

MIN_ROWS = 10  # of a slice and of the rest
_MARKS = {
    "a hashtag": re.compile(r"#\w"),
    "a mention": re.compile(r"@\w"),
    "a URL": re.compile(r"https?://|www\.|\bt\.co/", re.IGNORECASE),
    "an emoji": re.compile("[\u2600-\u27bf\u2b50\U0001f1e6-\U0001faff]"),
}
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """Some of the rows: how they are judged, and the rest; p is of a test that both are judged alike, after Holm's."""

    title: str
    num_rows: int
    inside: Figure
    outside: Figure
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether that is more than chance."""
        return self.p_value < ALPHA


def compare_slices(
    scores: Floats, texts: Sequence[str], pictures: Mapping[str, Floats], *, is_share: bool
) -> list[Slice]:
    """Compare each slice of `name_slices` with the other rows.

    Of shares Fisher's exact test and Wilson's intervals (1927), of errors that are numbers the test of Mann and Whitney
    (1947) and normal intervals; p-values after Holm's correction over all slices.

    Args:
        scores: (N,) 1 where a row was answered rightly and 0 where not, or its error.
        texts: N of them, "" where a row has none.
        pictures: (N,) measures of the pictures by their name, nan where a row has none.
    """
    found: list[Slice] = []
    p_values: list[float] = []
    for title, rows in name_slices(texts, pictures):
        inside, outside = scores[rows], scores[~rows]
        if min(len(inside), len(outside)) < MIN_ROWS:
            continue
        if is_share:
            counts = [[int(part.sum()), int(len(part) - part.sum())] for part in (inside, outside)]
            p_values.append(float(fisher_exact(counts).pvalue))
        else:
            p_values.append(float(mannwhitneyu(inside, outside).pvalue))
        figures = [measure(part, is_share=is_share) for part in (inside, outside)]
        found.append(Slice(title, len(inside), figures[0], figures[1], p_values[-1]))
    return [replace(each, p_value=p) for each, p in zip(found, adjust_holm(p_values), strict=True)]


def measure(scores: Floats, *, is_share: bool = True) -> Figure:
    """The mean of one or more scores, with its 95 % interval."""
    mean = float(scores.mean())
    if is_share:
        ends = binomtest(round(scores.sum()), len(scores)).proportion_ci(0.95, method="wilson")
        return Figure(mean, (float(ends.low), float(ends.high)))
    half = 1.96 * float(scores.std(ddof=1)) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return Figure(mean, (mean - half, mean + half))


def name_slices(texts: Sequence[str], pictures: Mapping[str, Floats]) -> Iterator[tuple[str, Bools]]:
    """Slices of the rows, (N,) each, by their titles; those of measures are thirds."""
    has_text = np.array([bool(text.strip()) for text in texts])
    yield "no text", ~has_text
    lengths = np.where(has_text, [len(text.split()) for text in texts], np.nan)
    yield from _thirds("words in the text", lengths)
    for name, pattern in _MARKS.items():
        yield f"text with {name}", np.array([pattern.search(text[:2000]) is not None for text in texts])
    scripts = np.array([find_script(text[:2000]) for text in texts])
    for script, _ in Counter(scripts[has_text].tolist()).most_common(6):
        yield f"script of the text: {script.capitalize()}", scripts == script
    for name, values in pictures.items():
        yield from _thirds(name, values)
    if pictures:
        yield "no picture", np.isnan(next(iter(pictures.values())))


def _thirds(name: str, values: Floats) -> Iterator[tuple[str, Bools]]:
    known = values[~np.isnan(values)]
    if len(known) < 3 * MIN_ROWS:
        return
    low, high = np.quantile(known, (1 / 3, 2 / 3))
    yield f"{name}: up to {low:.4g}", values <= low
    yield f"{name}: over {low:.4g}, up to {high:.4g}", (values > low) & (values <= high)
    yield f"{name}: over {high:.4g}", values > high
