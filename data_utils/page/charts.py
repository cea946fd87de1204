"""Charts as parts of a page: lines, points and bars in its own colours and letters, light and dark.

Not matplotlib's: its SVG has styles that the page's policy forbids and letters of its own, and costs 0.1 s a chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 400, 260  # in units of the drawing, in which letters are 12 high
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 42  # of what is around the drawing's field
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points that belong together; `form` says how they are drawn, `colour` is the number of one, from 1 to 6."""

    name: str
    points: Sequence[Point]
    form: Literal["line", "dashed", "points", "bars", "band"] = "line"
    colour: int = 1


@dataclass(frozen=True)
class Chart:
    """A chart and what it says in words, for those who don't see it; ranges are those of the points by default.

    A "band" has its lower ends from left to right, then its upper ends from right to left.
    """

    title: str
    words: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    x_range: Point | None = None
    y_range: Point | None = None

    @property
    def ranges(self) -> tuple[Point, Point]:
        """Of x and of y, each of some width."""
        found = []
        for axis, given in enumerate((self.x_range, self.y_range)):
            values = [point[axis] for series in self.series for point in series.points if math.isfinite(point[axis])]
            low, high = given or (min(values, default=0.0), max(values, default=1.0))
            found.append((low, high) if high > low else (low - 0.5, low + 0.5))
        return found[0], found[1]

    def place(self, point: Point) -> Point:
        """Where a point lies in the drawing; what lies outside of the ranges is moved to their edge."""
        shares = (
            min(1.0, max(0.0, (value - low) / (high - low)))
            for value, (low, high) in zip(point, self.ranges, strict=True)
        )
        x, y = shares
        return round(LEFT + x * (WIDTH - LEFT - RIGHT), 1), round(HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM), 1)

    def ticks(self, axis: Literal[0, 1]) -> Iterator[tuple[float, str]]:
        """Place and text of round numbers along x (0) or y (1)."""
        low, high = self.ranges[axis]
        step = 10 ** math.floor(math.log10((high - low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
        digits = max(0, -math.floor(math.log10(step)))
        for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
            value = number * step
            yield self.place((value, low) if axis == 0 else (self.ranges[0][0], value))[axis], f"{value:,.{digits}f}"

    def path(self, series: Series) -> str:
        """The `d` of a line, or of a band's outline; a gap where a value isn't finite."""
        steps, is_drawing = [], False
        for point in series.points:
            if all(map(math.isfinite, point)):
                x, y = self.place(point)
                steps.append(f"{'L' if is_drawing else 'M'}{x} {y}")
            is_drawing = all(map(math.isfinite, point))
        return " ".join(steps)
