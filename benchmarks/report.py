"""The table of all figures: docs/performance.md, from a file of results per machine."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.results import Result

# Instructions that decide how fast matrix products are.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
HEADER = ["measured", "median [least, greatest]", "against", "ratio", "target", "reached"]


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
    results: Mapping[str, Sequence[Result]]

    @property
    def name(self) -> str:
        """Of the machine: its GPUs, or else its processor with the last of the instructions that it has, for files."""
        devices = self.machine["gpus"] or [self.machine["cpu"], *self.machine["cpu_flags"][-1:]]
        words = [f"{len(self.machine['gpus']) or self.machine['cores']}x", *dict.fromkeys(devices)]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")

    def save(self, folder: Path) -> None:
        """Write `name`.json, in place of what was measured on such a machine before."""
        folder.mkdir(parents=True, exist_ok=True)
        results = {name: [result.to_dict() for result in found] for name, found in self.results.items()}
        text = json.dumps({"machine": self.machine, "data": self.data, "results": results}, indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")

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
        "cores": len(os.sched_getaffinity(0)),
        "cpu": facts.get("model name", platform.processor()),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "gpus": gpus,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def format_report(records: Sequence[Record]) -> str:
    """docs/performance.md: a section per machine, with a table per measurement and its command."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench`, which adds the machine that it runs on. Each ratio is of two sides that took turns",
        "in one run, so that what else the machine did met both; figures are medians over the repeats with the least",
        "and the greatest in brackets. A figure that misses its target is in bold.",
        "",
        *_compare(records),
    ]
    for record in records:
        lines += _format_record(record)
    return "\n".join(lines) + "\n"


def _compare(records: Sequence[Record]) -> list[str]:
    """A table of the figures that have a target: a row each, a column per machine."""
    judged: dict[tuple[str, str, str], dict[str, str]] = {}
    for record in records:
        for command, found in record.results.items():
            for result in found:
                if result.target is not None:
                    cells = judged.setdefault((command, result.name, _format_target(result)), {})
                    cells[record.name] = _round(result.judged) if result.is_met else f"**{_round(result.judged)}**"
    names = [record.name for record in records]
    rows = [["", "measured", "target", *names], ["---"] * (3 + len(names))]
    rows += [[*row, *(cells.get(name, "") for name in names)] for row, cells in judged.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _format_record(record: Record) -> list[str]:
    machine = record.machine
    lines = [
        "",
        f"## {record.name}",
        "",
        f"{machine['cores']} cores of {machine['cpu']} ({' '.join(machine['cpu_flags'])}), "
        f"{machine['memory_gib']} GiB, {', '.join(machine['gpus']) or 'no GPU'}; {machine['threads']} threads, "
        f"Python {machine['python']}, torch {machine['torch']}. Data: {record.data}.",
    ]
    for command, found in record.results.items():
        rows = [HEADER, ["---"] * len(HEADER), *map(_format_row, found)]
        lines += ["", f"`python -m benchmarks {command}`", "", *(f"| {' | '.join(row)} |" for row in rows)]
        lines += [f"\n{result.name}: {result.note}." for result in found if result.note]
    return lines


def _format_row(result: Result) -> list[str]:
    against = _format_values(result.against_values, result.unit) if result.against_values else ""
    return [
        result.name,
        _format_values(result.values, result.unit),
        f"{result.against}: {against}" if against else "",
        _format_values(result.ratios, "") if result.ratios else "",
        "" if result.target is None else _format_target(result),
        {True: "yes", False: "**no**", None: ""}[result.is_met],
    ]


def _format_target(result: Result) -> str:
    unit = "" if result.ratios else f" {result.unit}"
    return f"at {'least' if result.at_least else 'most'} {result.target:,g}{unit}"


def _format_values(values: Sequence[float], unit: str) -> str:
    return f"{_round(median(values))} [{_round(min(values))}, {_round(max(values))}] {unit}".strip()


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
