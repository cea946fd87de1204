"""Every file in accelerate_configs/ launches, with the world size and the wrapping that it promises."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT
from launching import launch, launcher, train_flags

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
# What train.py's flags decide; here it would override them or contradict them.
DECIDED_BY_FLAGS = {"mixed_precision", "gradient_accumulation_steps", "gradient_clipping", "dynamo_config"}
PRECISIONS = {"multi_gpu_bf16": "bf16", "fp8": "fp8"}  # these files are about it
# ZeRO needs an optimizer to shard, see test_strategies.py; the others have tests of their own, too.
LAUNCHED_HERE = ("cpu", "single_gpu", "multi_gpu", "multi_gpu_bf16")
LAUNCHED_ELSEWHERE = ("zero1", "zero2", "zero3", "zero3_offload", "fsdp2", "fp8", "multi_node", "multi_node_zero3")

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
    decided = DECIDED_BY_FLAGS & read(config).keys()
    assert decided == ({"mixed_precision"} if config.stem in PRECISIONS else set())
    assert read(config).get("mixed_precision", "no") == PRECISIONS.get(config.stem, "no")


def test_every_config_is_launched_by_a_test():
    assert sorted(config.stem for config in CONFIGS) == sorted((*LAUNCHED_HERE, *LAUNCHED_ELSEWHERE))


def test_fp8_is_refused_where_it_cannot_be_had(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = train_flags(tmp_path, tmp_path / "run")
    screen = launch(launcher("fp8", 2), *words, code=1)
    assert "FP8 is not available" in screen or "mixed_precision: fp8 on a machine without an accelerator" in screen


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ("multi_gpu_bf16", ["--bf16", "False"], "mixed_precision: bf16, the command line says --bf16 False"),
        ("multi_gpu_bf16", ["--fp16"], "mixed_precision: bf16, the command line says --fp16"),
        ("own", ["--gradient_accumulation_steps", "2"], "gradient_accumulation_steps"),
        ("own", [], "gradient_clipping"),
    ],
)
def test_contradiction_of_file_and_flags_names_both_once(config, flags, expected, tmp_path, make_pairs, numbered_rows):
    command = launcher(config, 2)
    if config == "own":
        if shutil.which("g++") is None:
            pytest.skip("DeepSpeed compiles an extension at its first start: no g++")
        file = tmp_path / "own.yaml"
        other = {"gradient_clipping": 0.5} if not flags else {"gradient_accumulation_steps": 3}
        settings = read(ROOT / "accelerate_configs" / "zero2.yaml")
        settings["deepspeed_config"] |= other
        file.write_text(yaml.safe_dump(settings))
        command[command.index("--config_file") + 1] = str(file)
    words = train_flags(make_pairs(numbered_rows(20)), tmp_path / "run", *flags)
    screen = launch(command, *words, code=1)
    errors = [line for line in screen.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]


@pytest.mark.parametrize("config", [path for path in CONFIGS if path.stem in LAUNCHED_HERE], ids=lambda path: path.stem)
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
    precision = PRECISIONS.get(config.stem, "no")
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert results == [{"world_size": ranks, "gradient": float(ranks), "precision": precision}] * ranks
