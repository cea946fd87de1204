"""docs/performance.md, written from the records of all machines.

`python -m benchmarks.report RECORD.json ...` adds what was measured elsewhere, as on a lent GPU; of several records of
one machine, as of calls that were cut, the figures are put together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.results import MACHINES, Record, Result
from data_utils.console.tables import format_markdown
from data_utils.system.files import write_text

PAGE = MACHINES.parent.parent / "docs" / "performance.md"
HEADER = ["measured", "median [least, greatest]", "against", "ratio", "target", "reached"]


def main() -> None:
    """Keep the given records among those of the machines, and write the page anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("records", nargs="*", type=Path, metavar="RECORD", help="JSON of python -m benchmarks")
    add_records(parser.parse_args().records, MACHINES)
    write_report()


def add_records(paths: Sequence[Path], machines: Path) -> None:
    """Put records into the folder of the machines', each in place of an older one of the same machine."""
    merged: dict[str, Record] = {}
    for record in map(Record.load, paths):
        merged[record.name] = merged[record.name].with_later(record) if record.name in merged else record
    for record in merged.values():
        record.save(machines)


def write_report() -> None:
    """Write docs/performance.md from all records."""
    write_text(PAGE, format_report([Record.load(path) for path in sorted(MACHINES.glob("*.json"))]))


def format_report(records: Sequence[Record]) -> str:
    """docs/performance.md: a section per machine, with a table per measurement and its command."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench`, which adds the machine that it runs on, and by `python -m benchmarks.report`,",
        "which adds records of `python -m benchmarks gpu`. Each ratio is of two sides that took turns in one run,",
        "so that what else the machine did met both; figures are medians over the repeats with the least and the",
        "greatest in brackets. A figure that misses its target is in bold.",
        "",
        _compare(records),
    ]
    for record in records:
        lines += _format_record(record)
    return "\n".join(lines) + "\n"


def _compare(records: Sequence[Record]) -> str:
    """A table of the figures that have a target: a row each, a column per machine."""
    judged: dict[tuple[str, str, str], dict[str, str]] = {}
    for record in records:
        for command, found in record.results.items():
            for result in found:
                if result.is_met is not None:
                    cells = judged.setdefault((command, result.name, _format_target(result)), {})
                    cells[record.name] = _round(result.judged) if result.is_met else f"**{_round(result.judged)}**"
    names = [record.name for record in records]
    rows = [[*row, *(cells.get(name, "") for name in names)] for row, cells in judged.items()]
    return format_markdown([["", "measured", "target", *names], *rows])


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
        table = format_markdown([HEADER, *map(format_row, found)])
        lines += ["", f"`python -m benchmarks {command}`", "", table]
        lines += [f"\n{result.name}: {result.note}." for result in found if result.note]
    return lines


def format_row(result: Result) -> list[str]:
    """The cells of a figure's line, under `HEADER`."""
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
    return f"at {'least' if result.at_least else 'most'} {result.target:,g}{unit}".strip()


def _format_values(values: Sequence[float], unit: str) -> str:
    if not values:
        return "not measured"
    return f"{_round(median(values))} [{_round(min(values))}, {_round(max(values))}] {unit}".strip()


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
