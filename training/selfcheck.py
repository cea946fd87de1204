"""Does a launch give the numbers of one process? `python -m training.selfcheck --config_file FILE.yaml`.

A tiny model is trained twice on drawn pairs, under the configuration and by one process with as many rows per update,
and the losses are compared update by update. Run it on a new cluster before the first long job.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from data_utils.console.command_line import FlagParser
from data_utils.console.tables import format_table
from data_utils.sample import SampleSettings, write_sample
from modeling.errors import InputError
from training.launch.console import exit_on_user_error, set_up_logging

ROOT = Path(__file__).resolve().parent.parent
SIZES: dict[str, float] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"attention_dropout": 0.0}  # dropout draws other numbers on other ranks
ROWS_PER_RANK = 4
# Largest difference of two losses around 1: sums in another order; half precision also rounds them.
TOLERANCES = {"no": 1e-5, "bf16": 5e-3, "fp16": 5e-3, "fp8": 5e-2}


class Launch(NamedTuple):
    """A launch configuration, as far as the comparison has to know it; `words` are flags of `accelerate launch`."""

    words: list[str]
    num_processes: int
    precision: str
    is_first_machine: bool
    num_updates: int


def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 0: the losses agree; 1: they don't, or the launch failed; 2: a mistake of the user's."""
    set_up_logging()
    with exit_on_user_error(), tempfile.TemporaryDirectory(prefix="selfcheck-") as folder:
        launch = parse_arguments(argv)
        work = Path(folder)
        write_sample(work / "pairs", settings=SampleSettings(num_pairs=96, num_test=1, seed=0))
        command = ["-m", "accelerate.commands.launch", *launch.words]
        launched = train(work, "launched", launcher=command, updates=launch.num_updates)
        if launch.is_first_machine:
            flags = [] if launch.precision in ("no", "fp8") else [f"--{launch.precision}"]
            flags += ["--gradient_accumulation_steps", str(launch.num_processes)]
            alone = train(work, "one process", launcher=[], updates=launch.num_updates, flags=flags)
            report(launched, alone, tolerance=TOLERANCES[launch.precision])


def parse_arguments(argv: Sequence[str] | None) -> Launch:
    """The launch to check; flags not known here go to `accelerate launch`."""
    parser = FlagParser(description=__doc__)
    parser.add_argument("--config_file", required=True, type=Path, help="a YAML file of `accelerate launch`")
    parser.add_argument("--num_processes", type=int, default=None, help="ranks over all machines; default: the file's")
    parser.add_argument("--machine_rank", default="0", help="which machine this is, of several")
    parser.add_argument("--updates", type=int, default=20, help="updates to compare")
    options, others = parser.parse_known_args(argv)
    try:
        config = yaml.safe_load(options.config_file.read_text(encoding="utf-8"))
        asked_for = options.num_processes or config.get("num_processes", 1)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise InputError(f"Can't read --config_file {options.config_file}: {error}") from error
    words = ["--config_file", str(options.config_file.resolve()), "--machine_rank", options.machine_rank, *others]
    if asked_for > 1:
        words += ["--num_processes", str(asked_for)]
    precision = config.get("mixed_precision") or "no"
    return Launch(words, asked_for, precision, options.machine_rank == "0", options.updates)


def train(work: Path, name: str, *, launcher: list[str], updates: int, flags: Sequence[str] = ()) -> dict[int, float]:
    """Train the tiny model in processes of their own; returns the loss of each update."""
    vision = SIZES | {"patch_size": 16}
    command = [
        *(sys.executable, *launcher, "train.py", "--data_dir", str(work / "pairs"), "--cache_dir", str(work / "cache")),
        *("--output_dir", str(work / name), "--model", "clip", "--from_scratch", "--projection_dim", "16"),
        *("--text_config", json.dumps(SIZES), "--vision_config", json.dumps(vision), "--image_size", "32"),
        *("--max_length", "16", "--fusion_dropout", "0", "--learning_rate", "1e-3", "--class_weights", "sqrt"),
        *("--per_device_train_batch_size", str(ROWS_PER_RANK), "--max_steps", str(updates), "--logging_steps", "1"),
        *("--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", str(updates), "--report_to", "none"),
        *("--disable_tqdm", "true", *flags),
    ]
    print(f"training: {name} ...", flush=True)
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error")]
        raise InputError(f"The training ({name}) failed: " + "\n".join(errors or done.stderr.splitlines()[-15:]))
    from training.checkpoint.checkpoints import list_checkpoints  # imports torch

    checkpoints = list_checkpoints(work / name / "checkpoints")
    if not checkpoints:  # another machine than the first, with shared files or without
        return {}
    state = json.loads((checkpoints[-1] / "trainer_state.json").read_text(encoding="utf-8"))
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def report(launched: dict[int, float], alone: dict[int, float], *, tolerance: float) -> None:
    """Print both curves; exit code 1 where they part."""
    rows = [["update", "launched", "one process", "difference"]]
    differences = {step: abs(launched.get(step, float("inf")) - alone[step]) for step in sorted(alone)}
    for step, difference in differences.items():
        rows.append([str(step), f"{launched.get(step, math.nan):.7f}", f"{alone[step]:.7f}", f"{difference:.1e}"])
    print(format_table(rows))
    agrees = all(difference <= tolerance for difference in differences.values())
    verdict = "the same numbers" if agrees else "OTHER NUMBERS"
    print(f"largest difference {max(differences.values()):.1e}, allowed {tolerance:.0e}: {verdict}")
    if not agrees:
        sys.exit(1)


if __name__ == "__main__":
    main()
