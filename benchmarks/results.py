"""A measurement's figures, and what is judged of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what was measured.
        values: a figure per repeat; none where nothing could be measured, and the note says why.
        unit: of the values.
        against: what it was measured against, in turn with it; "" for a figure that stands alone.
        against_values: that side's figures, one per repeat.
        target: what the ratio, or the median of a figure that stands alone, should reach; None to only know it.
        at_least: False where it should stay below the target.
        note: what the figure means, or what it leaves out.
    """

    name: str
    values: list[float]
    unit: str
    against: str = ""
    against_values: list[float] | None = None
    target: float | None = None
    at_least: bool = True
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """The values by those of the other side, repeat by repeat; [] for a figure that stands alone."""
        pairs = zip(self.values, self.against_values, strict=True) if self.against_values else ()
        return [value / other for value, other in pairs]

    @property
    def judged(self) -> float | None:
        """The median ratio, or the median of a figure that stands alone; None where nothing was measured."""
        return median(self.ratios or self.values) if self.values else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without one, or without a figure."""
        if self.target is None or not self.values:
            return None
        return self.judged >= self.target if self.at_least else self.judged <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the medians and the spread (least and greatest)."""
        figures = {"values": self.values, "against_values": self.against_values, "ratios": self.ratios}
        summary = {
            name: {"median": median(values), "spread": [min(values), max(values)]}
            for name, values in figures.items()
            if values
        }
        return asdict(self) | {"ratios": self.ratios, "summary": summary, "is_met": self.is_met}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        """Inverse of `to_dict`."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})
