"""All figures of one machine, and the file that keeps them."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import Result
from data_utils.system.files import write_text
from data_utils.system.home import count_cores

MACHINES = Path(__file__).resolve().parent / "machines"
# Instructions that decide how fast matrix products are.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")


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
