"""Runs the measurements, each in a process of its own: `python -m benchmarks [NAME ...]`, or `... gpu` on a GPU."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import time
from pathlib import Path

from benchmarks import gpu
from benchmarks.inputs import draw_pairs, write_clip
from benchmarks.preparation import read_guids
from benchmarks.report import format_report, format_row, write_report
from benchmarks.results import MACHINES, Record, Result, describe_machine
from benchmarks.runner import Target, run_all
from benchmarks.setting import Setting
from data_utils.system.files import write_text
from training.launch.console import set_up_logging

ROOT = Path(__file__).resolve().parent.parent
# In the order of the table: names of modules of this package that have a function `measure`, but for `memory`.
MEASUREMENTS = (
    *("step", "naive", "kernels", "loader", "preparation", "start"),
    *("evaluation", "features", "options", "sweep", "memory"),
)
GPU = "gpu"
MODULES = {name: name for name in MEASUREMENTS} | {"memory": "scale"}
TARGETS: dict[str, Target] = {name: (f"benchmarks.{module}:measure", math.inf) for name, module in MODULES.items()}
TARGETS |= gpu.PARTS
NUM_PAIRS, NUM_GPU_PAIRS, NUM_QUICK_PAIRS = 1000, 3600, 80
GPU_SECONDS = 280.0


def main() -> None:
    """Measure what is named, or everything; everything on a CPU writes the table too."""
    begin, options = time.monotonic(), _read_options()
    set_up_logging()
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    targets, for_gpu = _choose_targets(options)
    end = begin + (options.seconds or (GPU_SECONDS if for_gpu else math.inf))
    setting = _prepare(options, for_gpu=for_gpu)
    num_pairs = len(read_guids(setting.data_dir / "train.txt")) - 1
    data = f"{num_pairs:,} pairs, " + ("given by --data_dir" if options.data_dir else "drawn, JPEG of 400 px")
    record = Record(describe_machine(), data, {})
    for name, result in run_all(targets, setting, end=end, ahead=for_gpu):
        keep(name, result, record, options.output_dir)
    print(format_report([record]))
    if not options.names and not options.quick:
        record.save(MACHINES)
        write_report()
    missing = [name for name, found in record.results.items() if any(result.name == name for result in found)]
    if missing:
        raise SystemExit(f"Failed or left out, at least in part: {', '.join(missing)}.")


def keep(name: str, result: Result, record: Record, folder: Path) -> None:
    """Put a figure into the record, and write and show it at once: the call may be cut before the next one."""
    record.results.setdefault(name, []).append(result)
    record.save(folder)
    write_text(folder / "table.md", format_report([record]))
    print(f"{name}: {' | '.join(filter(None, format_row(result)))}", flush=True)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = f"{', '.join(MEASUREMENTS)}; all of them by default. On a GPU: {GPU} for all of {', '.join(gpu.PARTS)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {known}")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--data_dir", type=Path, help="folder with train.txt and data/; drawn by default")
    parser.add_argument("--clip_name", type=Path, help="folder of a CLIP; by default ViT-B/32's shape, random")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "benchmarks", help="inputs and caches")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=ROOT / "runs" / "benchmarks" / "results",
        help="for the record (JSON) and the table, written after each figure",
    )
    parser.add_argument(
        "--seconds", type=float, help=f"end after so many; on a GPU {GPU_SECONDS:.0f} by default, else never"
    )
    parser.add_argument("--quick", action="store_true", help="tiny model and few steps: shows only that all works")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - {GPU, *TARGETS}):
        parser.error(f"got {', '.join(unknown)}; allowed: {known}")
    return options


def _choose_targets(options: argparse.Namespace) -> tuple[dict[str, Target], bool]:
    """What was asked for, and whether any of it is for a GPU; a rehearsal may take as long as the machine needs."""
    chosen = [part for name in options.names or MEASUREMENTS for part in (gpu.PARTS if name == GPU else [name])]
    targets = {name: (TARGETS[name][0], math.inf) if options.quick else TARGETS[name] for name in chosen}
    return targets, not gpu.PARTS.keys().isdisjoint(chosen)


def _prepare(options: argparse.Namespace, *, for_gpu: bool) -> Setting:
    work_dir = (options.work_dir / ("quick" if options.quick else "full")).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    num_pairs = NUM_QUICK_PAIRS if options.quick else NUM_GPU_PAIRS if for_gpu else NUM_PAIRS
    data_dir = options.data_dir or work_dir / f"pairs-{num_pairs}"
    clip_name = options.clip_name or work_dir / f"clip-{data_dir.name}"
    if not (data_dir / "train.txt").exists():
        draw_pairs(data_dir, num_pairs)
    if not (clip_name / "config.json").exists():
        write_clip(clip_name, data_dir, tiny=options.quick)
    return Setting(data_dir.resolve(), clip_name.resolve(), work_dir, options.repeats, options.quick)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    main()
