"""The table of all figures: docs/performance.md and results.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.results import Result

# Instructions that decide how fast matrix products are.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
HEADER = ["measured", "median [least, greatest]", "against", "ratio", "target", "reached"]


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


def format_report(machine: Mapping[str, Any], data: str, results: Mapping[str, Sequence[Result]]) -> str:
    """docs/performance.md: the machine, then a table per measurement with its command."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench`. Each ratio is of two sides that took turns in one run, so that what else the machine",
        "did met both; figures are medians over the repeats with the least and the greatest in brackets.",
        "",
        f"Machine: {machine['cores']} cores of {machine['cpu']} ({' '.join(machine['cpu_flags'])}), "
        f"{machine['memory_gib']} GiB, {', '.join(machine['gpus']) or 'no GPU'}; {machine['threads']} threads, "
        f"Python {machine['python']}, torch {machine['torch']}.",
        f"Data: {data}.",
    ]
    for command, found in results.items():
        rows = [HEADER, ["---"] * len(HEADER), *map(_format_row, found)]
        lines += ["", f"`python -m benchmarks {command}`", "", *(f"| {' | '.join(row)} |" for row in rows)]
        lines += [f"\n{result.name}: {result.note}." for result in found if result.note]
    return "\n".join(lines) + "\n"


def _format_row(result: Result) -> list[str]:
    against = _format_values(result.against_values, result.unit) if result.against_values else ""
    sign = "at least" if result.at_least else "at most"
    return [
        result.name,
        _format_values(result.values, result.unit),
        f"{result.against}: {against}" if against else "",
        _format_values(result.ratios, "") if result.ratios else "",
        "" if result.target is None else f"{sign} {result.target:g}",
        {True: "yes", False: "**no**", None: ""}[result.is_met],
    ]


def _format_values(values: Sequence[float], unit: str) -> str:
    return f"{_round(median(values))} [{_round(min(values))}, {_round(max(values))}] {unit}".strip()


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
