"""How far a piece of work is: a bar on a terminal, and plain lines now and then in a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
# Seconds between two lines: a hundredth of the time that has passed, in these limits.
SHORTEST, LONGEST = 5.0, 60.0


def progress(
    items: Iterable[T] | None = None,
    *,
    description: str,
    unit: str,
    total: int | None = None,
    done: int = 0,
    is_shown: bool = True,
    stays: bool = True,
) -> tqdm[T] | PlainProgress[T]:
    """Count work on the screen; the one place that decides how.

    Args:
        items: what to go through; None: `update` is told what was done.
        description, unit: of the work, and what is counted, as "rows".
        total, done: how many there are, by default the length of `items`, and how many were done before.
        is_shown: False shows nothing: one rank speaks for all.
        stays: whether a bar stays at its end, and a line tells of work that was done too soon for lines.
    """
    if is_shown and not sys.stderr.isatty():
        return PlainProgress(items, description=description, unit=unit, total=total, done=done, stays=stays)
    options = {"total": total, "initial": done, "leave": stays, "disable": not is_shown, "dynamic_ncols": True}
    return tqdm(items, desc=description, unit=f" {unit}", **options)


class PlainProgress(Iterable[T]):
    """What the project uses of `tqdm`, by whole lines on stderr; `progress` describes the arguments."""

    def __init__(
        self, items: Iterable[T] | None, *, description: str, unit: str, total: int | None, done: int, stays: bool
    ) -> None:
        self.items, self.description, self.unit, self.stays = items, description, unit, stays
        self.total = total
        if total is None:
            with suppress(TypeError):  # of loaders of streams, whose rows nobody counted
                self.total = len(items)  # type: ignore[arg-type]  # it may have no length
        self.n = self._before = done
        self._figures: dict[str, Any] = {}
        self._begin = self._last = time.monotonic()
        self._told = -1
        self._is_closed = False

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in () if self.items is None else self.items:
                yield item
                self.update()

    def __enter__(self) -> PlainProgress[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_closed = self._is_closed or kind is not None
        self.close()

    def update(self, n: int = 1) -> None:
        """Count so many more, and tell it if it is time to."""
        self.n += n
        now = time.monotonic()
        # The last one is told by `close`, with the figures that belong to it.
        if self.n != self.total and now - self._last >= min(LONGEST, max(SHORTEST, (now - self._begin) / 100)):
            self._tell(now)

    def set_postfix(self, figures: dict[str, Any]) -> None:
        """Figures that the next line tells too."""
        self._figures = figures

    def write(self, text: str) -> None:
        """A line of its own, on stdout as of `tqdm.write`."""
        print(text, flush=True)

    def close(self) -> None:
        """Tell the end, once."""
        if not self._is_closed and self._told != self.n and (self.stays or self._told >= 0):
            self._tell(time.monotonic())
        self._is_closed = True

    def _tell(self, now: float) -> None:
        count = f"{self.n:,}" if self.total is None else f"{self.n:,} of {self.total:,}"
        parts = [f"{count} {self.unit}", *(f"{name} {value}" for name, value in self._figures.items())]
        seconds, number = now - self._begin, self.n - self._before
        if number and seconds:
            rate = number / seconds
            parts.append(f"{rate:,.1f} {self.unit}/s" if rate >= 1 else f"{1 / rate:,.1f} s each")
            if self.total is not None and self.n < self.total:
                parts.append(f"{tqdm.format_interval((self.total - self.n) / rate)} left")
            else:
                parts.append(f"{tqdm.format_interval(seconds)} in all")
        print(f"{self.description}: {', '.join(parts)}", file=sys.stderr, flush=True)
        self._last, self._told = now, self.n
