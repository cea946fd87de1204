"""Starts the programs as a user does: real processes, one or several ranks, from the repository's folder."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from conftest import ONE_EPOCH, ROOT, SMALL, TINY
from warm import WarmPython

from modeling.classifier import SentimentClassifier
from training.checkpoint.checkpoints import list_checkpoints, step_of

NO_DROPOUT = {"attention_dropout": 0.0}
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an extension at its first start: no g++"
)

needs_cuda = functools.partial(pytest.mark.skipif, not torch.cuda.is_available())


def launcher(config: str, num_processes: int | None = None) -> list[str]:
    """`accelerate launch` with a shipped configuration, on any free port."""
    ranks = [] if num_processes is None else ["--num_processes", str(num_processes), "--main_process_port", "0"]
    return ["accelerate", "launch", "--config_file", f"accelerate_configs/{config}.yaml", *ranks]


def start(command: Sequence[str], *words: str, log: Path) -> subprocess.Popen:
    """Start a command of the environment's own programs, with the help of `warm`; both streams go to `log`."""
    with log.open("w") as file:
        return subprocess.Popen([*warm(command), *words], cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def warm(command: Sequence[str]) -> list[str]:
    """A command that begins with a program of the environment, to be run by the warm process."""
    program = [] if command[0] == "python" else [program_of(command[0])]
    return [str(warm_python().program), *program, *command[1:]]


def program_of(name: str) -> str:
    """The path of a program of the environment."""
    return os.path.join(os.path.dirname(sys.executable), name)


def launch(
    command: Sequence[str], *words: str, code: int = 0, timeout: float = 600, cold: bool = False, folder: Path = ROOT
) -> str:
    """Run a command in a folder to its end; returns what it printed on both streams.

    The command is of python, accelerate or torchrun. `cold`: it and its ranks start as a user's do, without the help of
    `warm`, for 12 s more per process.
    """
    started = [program_of(command[0]), *command[1:]] if cold else warm(command)
    done = subprocess.run([*started, *words], cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == code, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@functools.cache
def warm_python() -> WarmPython:
    """The warm process of this session, which is started for the first program that is launched; it ends with it."""
    return WarmPython(Path(tempfile.mkdtemp()))


def train_flags(
    sample: Path, run: Path, *flags: str, options: dict = NO_DROPOUT, model: Sequence[str] | None = None
) -> list[str]:
    """train.py on small pictures; by default a tiny CLIP without dropout, so that ranks don't change the numbers."""
    folders = ["--data_dir", str(sample), "--output_dir", str(run), "--cache_dir", str(sample.parent / "cache")]
    tiny_clip = ["--model", "clip", "--from_scratch", "--projection_dim", "16"]
    tiny_clip += ["--text_config", json.dumps(TINY | options)]
    tiny_clip += ["--vision_config", json.dumps(TINY | options | {"patch_size": 16})]
    more = ["--fusion_dropout", "0", "--val_ratio", "0.25", "--logging_steps", "1"]
    return ["train.py", *folders, *(tiny_clip if model is None else model), *SMALL, *ONE_EPOCH, *more, *flags]


def too_large_batch(make_pairs: Callable[..., Path], run: Path) -> list[str]:
    """Flags of train.py for 128 texts of 512 tokens in one layer that makes 275 GB of them, which no device has.

    Before the first update only short texts meet the layer, so nothing else is large.
    """
    rows = [(str(number), ("negative", "positive")[number % 2], f"word {number} " * 256) for number in range(128)]
    tower = TINY | {"intermediate_size": 2**20, "max_position_embeddings": 512}
    words = ["--data_dir", str(make_pairs(rows)), "--output_dir", str(run), "--cache_dir", f"{run}-cache"]
    words += ["--model", "clip", "--fusion", "text_only", "--from_scratch", "--text_config", json.dumps(tower)]
    words += ["--projection_dim", "16", "--max_length", "512", "--val_ratio", "0", "--report_to", "none"]
    return [*words, "--per_device_train_batch_size", "128", "--bf16", "False", "--max_steps", "1"]


def logged_losses(run: Path) -> dict[int, float]:
    """Training loss by update, from the newest checkpoint."""
    newest = list_checkpoints(run / "checkpoints")[-1]
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def list_steps(run: Path) -> list[int]:
    """The updates after which there are checkpoints."""
    return [step_of(path) for path in list_checkpoints(run / "checkpoints")]


def read_model_folder(run: Path) -> dict[str, bytes]:
    """A saved model's files by name, but for its weights, its card, and the last cut in its tokenizer."""
    paths = (run / "model").iterdir()
    told = {path.name: path.read_bytes() for path in paths if path.suffix not in (".safetensors", ".md")}
    return told | {"tokenizer.json": b""} if "tokenizer.json" in told else told


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """The run's saved model, float32."""
    weights = SentimentClassifier.from_pretrained(run / "model").state_dict()
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    return weights


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, timeout: float = 200) -> bool:
    """Poll every millisecond; False if the process ended first."""
    limit = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.001)
    return True


def kill(process: subprocess.Popen) -> None:
    """kill -9 the launcher and all its ranks at once; when it returns, none of them writes any more.

    torchrun starts each rank in a session of its own, which a kill of the launcher's group doesn't reach.
    """
    group = [process.pid, *descendants(process.pid)]
    for pid in group:
        with contextlib.suppress(ProcessLookupError):  # ended by itself
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert all_end(group), "a killed process is still there"


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, those of `warm` behind their clients; of those that end meanwhile, perhaps not all."""
    found = []
    note = warm_python().program.with_name(str(pid)) if warm_python.cache_info().currsize else None
    if note is not None and note.exists() and (program := note.read_text()):
        found += [int(program), *descendants(int(program))]
    for thread in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, Path(thread).read_text().split()):
                found += [child, *descendants(child)]
    return found


def all_end(pids: Sequence[int], timeout: float = 10) -> bool:
    """Whether the processes end within so many seconds."""
    limit = time.monotonic() + timeout
    while any(map(is_alive, pids)) and time.monotonic() < limit:
        time.sleep(0.001)
    return not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    """Whether a process can still do anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
