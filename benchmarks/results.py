"""A measurement's figures, what is judged of them, and the file that keeps all those of one machine."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from data_utils.system.files import write_text
from data_utils.system.home import count_cores

MACHINES = Path(__file__).resolve().parent / "machines"
# Instructions that decide how fast matrix products are.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")


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


@dataclass(frozen=True)
class Record:
    """What was measured on one machine.

    Attributes:
        machine: see `describe_machine`.
        data: in words, the pairs that were trained on.
        results: figures by the measurement's name.
    """

    machine: Mapping[str, Any]
    data: str
    results: dict[str, list[Result]]

    @property
    def name(self) -> str:
        """Of the machine: its GPUs, or else its processor with the last of the instructions that it has, for files."""
        devices = self.machine["gpus"] or [self.machine["cpu"], *self.machine["cpu_flags"][-1:]]
        words = [f"{len(self.machine['gpus']) or self.machine['cores']}x", *dict.fromkeys(devices)]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")

    def save(self, folder: Path) -> None:
        """Write `name`.json, in place of what was measured on such a machine before."""
        results = {name: [result.to_dict() for result in found] for name, found in self.results.items()}
        text = json.dumps({"machine": self.machine, "data": self.data, "results": results}, indent=1)
        write_text(folder / f"{self.name}.json", text + "\n")

    def with_later(self, later: Record) -> Record:
        """These figures and those of a later call on the same machine, which replace these where they have values."""
        measured = {name: found for name, found in later.results.items() if any(result.values for result in found)}
        return Record(later.machine, later.data, later.results | self.results | measured)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Inverse of `save`."""
        content = json.loads(path.read_text(encoding="utf-8"))
        results = {name: [Result.from_dict(value) for value in found] for name, found in content["results"].items()}
        return cls(content["machine"], content["data"], results)


def describe_machine() -> dict[str, Any]:
    """Cores, processor, memory, threads and versions."""
    cpu = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in cpu.read_text().splitlines()] if cpu.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = set(facts.get("flags", "").split())
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cores": count_cores(),
        "cpu": facts.get("model name", platform.processor()),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "gpus": gpus,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
