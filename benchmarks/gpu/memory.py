"""Most memory of a training at a large batch, under each way to save some.

`accelerate launch ... -m benchmarks.gpu.memory FLAGS` is what is launched.
"""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.steps import LARGE, loop_flags
from benchmarks.results import Result
from benchmarks.setting import Setting
from data_utils.system.files import write_text
from training.experiments.training import assemble
from training.flags.parsing import parse_arguments
from training.launch.console import exit_on_user_error
from training.launch.ranks import shut_down_distributed

ROOT = Path(__file__).resolve().parent.parent.parent
# File of accelerate_configs/, and flags.
WAYS = {
    "data parallel": ("multi_gpu", ()),
    "data parallel, checkpointing": ("multi_gpu", ("--gradient_checkpointing", "true")),
    "ZeRO-2": ("zero2", ()),
    "ZeRO-3, offload": ("zero3_offload", ()),
}
STEPS = 3
LOG, PEAK = "log.txt", "peak.json"
ERROR = re.compile(r"(error: |\w*(Error|Exception|Exit)\b)")


def measure(setting: Setting) -> Iterator[Result]:
    """GiB that torch had allocated at most, on one rank of one; all ways at once, as each has its own memory."""
    with tempfile.TemporaryDirectory(dir=setting.work_dir) as folder:
        folders = {name: Path(folder) / str(number) for number, name in enumerate(WAYS)}
        started = {name: start(setting, path, name) for name, path in folders.items()}
        for name, process in started.items():
            yield read_peak(name, process, folders[name])


def start(setting: Setting, folder: Path, name: str) -> subprocess.Popen[bytes] | None:
    """Launch a short training with `folder` for its output; None where its library isn't there."""
    config, flags = WAYS[name]
    folder.mkdir()
    if config.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        return None
    words = setting.flags(*loop_flags(setting, LARGE), *flags, "--max_steps", str(STEPS), "--report_to", "none")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--main_process_port", "0"]
    launcher += ["--config_file", f"accelerate_configs/{config}.yaml", "-m", "benchmarks.gpu.memory"]
    with (folder / LOG).open("wb") as log:
        command = [*launcher, *words, "--output_dir", str(folder)]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def read_peak(name: str, process: subprocess.Popen[bytes] | None, folder: Path) -> Result:
    """The figure of a launch once it has ended, or why there is none."""
    title = f"{name}, batch {LARGE}"
    if process is None:
        return Result(title, [], "GiB", note="deepspeed is not installed")
    code = process.wait()
    if (folder / PEAK).exists():
        return Result(title, [json.loads((folder / PEAK).read_text(encoding="utf-8")) / 2**30], "GiB")
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if ERROR.match(line)] or lines[-1:]
    return Result(title, [], "GiB", note=f"failed with {code}: {' '.join(errors[:1])}")


def main() -> None:
    """Train as the flags say, and write the most bytes that were allocated (on the CPU: resident) into the output."""
    with exit_on_user_error():
        args = parse_arguments(sys.argv[1:])
        trainer, _, _ = assemble(*args)
        trainer.train()
        on_cpu = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else on_cpu
        write_text(Path(args[-1].output_dir) / PEAK, json.dumps(peak))
        shut_down_distributed()


if __name__ == "__main__":
    main()
