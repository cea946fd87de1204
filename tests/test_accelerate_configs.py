"""Every file in accelerate_configs/ launches, with the world size and the wrapping that it promises."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
# What train.py's flags decide; here it would override them or contradict them.
DECIDED_BY_FLAGS = {"mixed_precision", "gradient_accumulation_steps", "gradient_clipping", "dynamo_config"}

# One weight, a gradient of 1 on rank 0 and of 3 on rank 1: only where the ranks are tied do all get the mean.
PROGRAM = """
import json, sys, torch
from accelerate import Accelerator
from training.launch import part_ranks

def main():
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    model = accelerator.prepare(torch.nn.Linear(1, 1, bias=False))
    model(torch.full((1, 1), 1.0 + 2 * accelerator.process_index, device=accelerator.device)).sum().backward()
    gradient = next(model.parameters()).grad.item()
    result = {"world_size": accelerator.num_processes, "gradient": gradient, "precision": accelerator.mixed_precision}
    with open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w") as file:
        json.dump(result, file)

main()
part_ranks()
"""


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_says_what_each_key_is_for(config):
    load_config_from_file(str(config))
    keys = [line for line in config.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in keys if " # " not in line] == []
    assert not DECIDED_BY_FLAGS & read(config).keys()


@pytest.mark.parametrize(
    # ZeRO needs an optimizer to shard: tests/test_launch.py launches train.py itself with it.
    "config",
    [path for path in CONFIGS if read(path)["distributed_type"] != "DEEPSPEED"],
    ids=lambda path: path.stem,
)
def test_config_launches_the_ranks_it_promises(config, tmp_path):
    ranks = 1 if read(config)["distributed_type"] == "NO" else 2
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = ["--config_file", str(config), "--main_process_port", "0"]
    words += ["--num_processes", str(ranks)] if ranks > 1 else []
    launched = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words, str(program), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert results == [{"world_size": ranks, "gradient": float(ranks), "precision": "no"}] * ranks
