"""Runs the measurements, each in a process of its own: `python -m benchmarks [PART ...]`, or `... gpu` on a GPU."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from functools import partial
from pathlib import Path

from benchmarks import data, evaluation, kernels, launches, naive, steps
from benchmarks.parts import FOREVER, Part, run_parts
from benchmarks.report import MACHINES, Record, Result, describe_machine, format_figure, format_report, write_report
from benchmarks.setting import ROOT, Setting, draw_pairs, read_guids, write_clip
from data_utils.system.files import write_text
from training.launch.console import set_up_logging

OTHERS = ("vilbert", "baseline")
PARTS = {
    "step": Part(steps.measure_loop),
    "naive": Part(naive.measure),
    "kernels": Part(kernels.measure),
    "loader": Part(data.measure_loader),
    "reading": Part(data.measure_reading),
    "preparation": Part(data.measure_preparation),
    "start": Part(launches.measure_start),
    "evaluation": Part(evaluation.measure_prediction),
    "features": Part(evaluation.measure_features),
    "options": Part(steps.measure_options),
    "sweep": Part(launches.measure_sweep),
    "memory": Part(launches.measure_memory),
}
# In the order of importance: of a call of 280 seconds what comes late is left out, and has a call of its own.
GPU_PARTS = {
    "gpu.rates": Part(kernels.measure_rates, 20),
    "gpu.steps": Part(steps.measure_on_card, 40),
    "gpu.compiled": Part(partial(steps.measure_on_card, compiled=True, sizes=(steps.LARGE,)), 150),
    "gpu.naive": Part(naive.measure_gpu, 50),
    "gpu.feeding": Part(data.measure_feeding, 40),
    "gpu.sweep": Part(launches.measure_sweep_on_card, 60),
    "gpu.memory": Part(launches.measure_gpu_memory, 90),
    "gpu.evaluation": Part(evaluation.measure_gpu, 40),
    "gpu.architectures": Part(partial(steps.measure_on_card, models=OTHERS), 60),
    "gpu.compiled_small": Part(partial(steps.measure_on_card, compiled=True, sizes=(steps.SMALL,)), 150),
    "gpu.architectures_compiled": Part(partial(steps.measure_on_card, models=OTHERS, compiled=True), 400),
}


def main() -> None:
    """Measure what is named, or everything; everything on a CPU writes the table too."""
    options = read_options()
    set_up_logging()
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    names = [part for name in options.names or PARTS for part in (GPU_PARTS if name == "gpu" else [name])]
    parts = {name: (PARTS | GPU_PARTS)[name] for name in names}
    if options.quick:  # a rehearsal may take as long as the machine needs
        parts = {name: Part(part.measure) for name, part in parts.items()}
    on_card = not parts.keys().isdisjoint(GPU_PARTS)
    setting = prepare(options, 3600 if on_card else 1000)
    about = "given by --data_dir" if options.data_dir else "drawn, JPEG of 400 px"
    record = Record(describe_machine(), f"{len(read_guids(setting.data_dir)):,} pairs, {about}", {})
    seconds = options.seconds or (280 if on_card else FOREVER)
    for name, result in run_parts(parts, setting, seconds=seconds):
        keep(name, result, record, options.output_dir)
    print(format_report([record]))
    if not options.names and not options.quick:
        record.save(MACHINES)
        write_report()
    if missing := [name for name, found in record.results.items() if any(result.name == name for result in found)]:
        raise SystemExit(f"Failed or left out, at least in part: {', '.join(missing)}.")


def keep(name: str, result: Result, record: Record, folder: Path) -> None:
    """Put a figure into the record, and write and show it at once: the call may be cut before the next one."""
    record.results.setdefault(name, []).append(result)
    record.save(folder)
    write_text(folder / "table.md", format_report([record]))
    print(f"{name}: {' | '.join(filter(None, [*format_figure(result), result.note]))}", flush=True)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = f"{', '.join(PARTS)}; all of them by default. On a GPU: gpu for all of {', '.join(GPU_PARTS)}"
    folder = ROOT / "runs" / "benchmarks"
    parser.add_argument("names", nargs="*", metavar="PART", help=f"any of {known}")
    parser.add_argument("--data_dir", type=Path, help="folder with train.txt and data/; drawn by default")
    parser.add_argument("--work_dir", type=Path, default=folder, help="inputs and caches")
    parser.add_argument("--output_dir", type=Path, default=folder / "results", help="for the record and the table")
    parser.add_argument("--seconds", type=float, help="end after so many; on a GPU 280 by default, else never")
    parser.add_argument("--quick", action="store_true", help="tiny model and few steps: shows only that all works")
    options = parser.parse_args()
    if unknown := sorted({*options.names} - {"gpu", *PARTS, *GPU_PARTS}):
        parser.error(f"got {', '.join(unknown)}; allowed: {known}")
    return options


def prepare(options: argparse.Namespace, num_pairs: int) -> Setting:
    """Draw what isn't given."""
    num_pairs = 80 if options.quick else num_pairs
    work_dir = (options.work_dir / ("quick" if options.quick else "full")).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    data_dir = options.data_dir or work_dir / f"pairs-{num_pairs}"
    clip_name = work_dir / f"clip-{data_dir.name}"
    if not (data_dir / "train.txt").exists():
        draw_pairs(data_dir, num_pairs)
    if not (clip_name / "config.json").exists():
        write_clip(clip_name, data_dir, tiny=options.quick)
    return Setting(data_dir.resolve(), clip_name.resolve(), work_dir, options.quick)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    main()
