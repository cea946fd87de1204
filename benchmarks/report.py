"""Figures, the record of a machine, and docs/performance.md, written from the records of all machines.

`python -m benchmarks.report RECORD.json ...` adds what was measured elsewhere, as on a lent GPU; of several records of
one machine, as of calls that were cut, the figures are put together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from data_utils.console.tables import format_markdown
from data_utils.system.files import write_text
from data_utils.system.home import count_cores

MACHINES = Path(__file__).resolve().parent / "machines"
PAGE = MACHINES.parent.parent / "docs" / "performance.md"
INTRODUCTION = """# Performance

Written by `make bench`, which adds the machine that it runs on, and by `python -m benchmarks.report`,
which adds records of `python -m benchmarks gpu`. Each ratio is of two sides that took turns in one run,
so that what else the machine did met both; behind it stands the rate of the first side. Figures are medians over
the repeats, with the least and the greatest in brackets; one that misses its target is in bold.
`python -m benchmarks step` measures a part again.
"""
# Instructions that decide how fast matrix products are.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")


@dataclass(frozen=True)
class Result:
    """One line of the table: a figure per repeat, or none, and the note says why.

    Beside another side that took turns with it, the ratios are judged, and else the values themselves: their median
    should reach the target (or, without `at_least`, stay below it).
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
        return [value / other for value, other in zip(self.values, self.against_values or (), strict=False)]

    @property
    def judged(self) -> float | None:
        """The median ratio, or the median of a figure that stands alone; None where nothing was measured."""
        return median(self.ratios or self.values) if self.values else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without one, or without a figure."""
        if self.target is None or self.judged is None:
            return None
        return self.judged >= self.target if self.at_least else self.judged <= self.target


@dataclass(frozen=True)
class Record:
    """What was measured on one machine: its `describe_machine`, the pairs in words, figures by the part's name."""

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
        write_text(folder / f"{self.name}.json", json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Inverse of `save`."""
        content, names = json.loads(path.read_text(encoding="utf-8")), [field.name for field in fields(Result)]
        for part, found in content["results"].items():
            content["results"][part] = [Result(**{name: values[name] for name in names}) for values in found]
        return cls(**content)


def describe_machine() -> dict[str, Any]:
    """Cores, processor, memory, threads and versions."""
    import torch  # which takes longer to load than what the processes of some parts do

    cpu = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in cpu.read_text().splitlines()] if cpu.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "cores": count_cores(),
        "cpu": facts.get("model name", platform.processor()),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in facts.get("flags", "").split()],
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Keep the given records among those of the machines, and write the page anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("records", nargs="*", type=Path, metavar="RECORD", help="JSON of python -m benchmarks")
    for record in merge_records(map(Record.load, parser.parse_args().records)).values():
        record.save(MACHINES)
    write_report()


def merge_records(records: Iterable[Record]) -> dict[str, Record]:
    """One record per machine: figures of later ones replace those of earlier ones where there are values."""
    merged: dict[str, Record] = {}
    for later in records:
        earlier = merged[later.name].results if later.name in merged else {}
        measured = {part: found for part, found in later.results.items() if any(result.values for result in found)}
        merged[later.name] = Record(later.machine, later.data, later.results | earlier | measured)
    return merged


def write_report() -> None:
    """Write docs/performance.md from all records."""
    write_text(PAGE, format_report([Record.load(path) for path in sorted(MACHINES.glob("*.json"))]))


def format_report(records: Sequence[Record]) -> str:
    """The page: a row per figure and a column per machine, then what the figures mean."""
    rows: dict[tuple[str, ...], list[str]] = {}
    notes = {}
    for column, record in enumerate(records):
        for part, found in record.results.items():
            for result in found:
                cells = rows.setdefault((part, *format_figure(result)[:2]), [""] * len(records))
                cells[column] = format_figure(result)[2]
                notes[part, result.name] = result.note
    header = ["part", "measured", "target", *(record.name for record in records)]
    lines = [INTRODUCTION, format_markdown([header, *([*row, *cells] for row, cells in rows.items())]), "", "## Notes"]
    lines += [f"\n{part}: {name}: {note}." for (part, name), note in notes.items() if note]
    for record in records:
        machine = record.machine
        lines.append(
            f"\n{record.name}: {machine['cores']} cores of {machine['cpu']} ({' '.join(machine['cpu_flags'])}), "
            f"{machine['memory_gib']} GiB, {', '.join(machine['gpus']) or 'no GPU'}; {machine['threads']} threads, "
            f"Python {machine['python']}, torch {machine['torch']}. Data: {record.data}."
        )
    return "\n".join(lines) + "\n"


def format_figure(result: Result) -> tuple[str, str, str]:
    """What was measured, its target, and what came out: the ratio and the rate behind it, or the figure itself."""
    unit, judged = f" {result.unit}".rstrip(), result.ratios or result.values
    target = "" if result.target is None else f"at {'least' if result.at_least else 'most'} {result.target:,g}"
    if not judged:
        return result.name, target, "not measured"
    middle, low, high = (_round(figure(judged)) for figure in (median, min, max))
    figure = f"**{middle}** [{low}, {high}]" if result.is_met is False else f"{middle} [{low}, {high}]"
    if result.ratios:
        return f"{result.name}, against {result.against}", target, f"{figure}; {_round(median(result.values))}{unit}"
    return result.name, f"{target}{unit}" if target else "", f"{figure}{unit}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
