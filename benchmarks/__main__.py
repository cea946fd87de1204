"""Runs the measurements, each in a process of its own: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.inputs import draw_pairs, write_clip
from benchmarks.preparation import read_guids
from benchmarks.record import Record, describe_machine
from benchmarks.report import format_report
from benchmarks.results import Result
from benchmarks.setting import Setting
from training.console import set_up_logging

logger = logging.getLogger("benchmarks")
ROOT = Path(__file__).resolve().parent.parent
MACHINES = ROOT / "benchmarks" / "machines"
# Modules of this package that have a function `measure`, in the order of the table.
MEASUREMENTS = (
    *("step", "naive", "kernels", "loader", "preparation", "start"),
    *("evaluation", "features", "options", "sweep", "memory"),
)
NUM_PAIRS, NUM_QUICK_PAIRS = 1000, 80


def main() -> None:
    """Measure what is named, or everything; everything writes the table too."""
    options = _read_options()
    set_up_logging()
    setting = _prepare(options)
    if options.json:
        (name,) = options.names
        results = importlib.import_module(f"benchmarks.{name}").measure(setting)
        Path(options.json).write_text(json.dumps([result.to_dict() for result in results]), encoding="utf-8")
        return
    asked = options.names or MEASUREMENTS
    found = {name: results for name in asked if (results := _run(name, setting))}
    num_pairs = len(read_guids(setting.data_dir / "train.txt")) - 1
    data = f"{num_pairs:,} pairs, " + ("given by --data_dir" if options.data_dir else "drawn, JPEG of 400 px")
    record = Record(describe_machine(), data, found)
    print(format_report([record]))
    if not options.names and not options.quick:
        record.save(MACHINES)
        records = [Record.load(path) for path in sorted(MACHINES.glob("*.json"))]
        (ROOT / "docs" / "performance.md").write_text(format_report(records), encoding="utf-8")
    if len(found) < len(asked):
        raise SystemExit(f"Failed: {', '.join(name for name in asked if name not in found)}.")


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MEASUREMENTS)}; all by default")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--data_dir", type=Path, help="folder with train.txt and data/; drawn by default")
    parser.add_argument("--clip_name", type=Path, help="folder of a CLIP; by default ViT-B/32's shape, random")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "benchmarks", help="inputs and caches")
    parser.add_argument("--quick", action="store_true", help="tiny model and few steps: shows only that all works")
    parser.add_argument("--json", help=argparse.SUPPRESS)  # where the process of one measurement leaves its results
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"got {', '.join(unknown)}; allowed: {', '.join(MEASUREMENTS)}")
    return options


def _prepare(options: argparse.Namespace) -> Setting:
    work_dir = (options.work_dir / ("quick" if options.quick else "full")).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    data_dir, clip_name = options.data_dir or work_dir / "pairs", options.clip_name or work_dir / "clip"
    if not (data_dir / "train.txt").exists():
        draw_pairs(data_dir, NUM_QUICK_PAIRS if options.quick else NUM_PAIRS)
    if not (clip_name / "config.json").exists():
        write_clip(clip_name, data_dir, tiny=options.quick)
    return Setting(data_dir.resolve(), clip_name.resolve(), work_dir, options.repeats, options.quick)


def _run(name: str, setting: Setting) -> list[Result]:
    """One measurement in a process of its own, whose memory is gone when the next one begins; [] if it failed."""
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = ["--data_dir", str(setting.data_dir), "--clip_name", str(setting.clip_name)]
        words += ["--work_dir", str(setting.work_dir.parent), "--repeats", str(setting.repeats), "--json", file.name]
        words += ["--quick"] if setting.quick else []
        done = subprocess.run([sys.executable, "-m", "benchmarks", name, *words], cwd=ROOT, check=False)
        if done.returncode:
            return []
        values = json.loads(Path(file.name).read_text(encoding="utf-8"))
    logger.info("%s: %.0f s.", name, time.perf_counter() - begin)
    return [Result.from_dict(value) for value in values]


if __name__ == "__main__":
    main()
